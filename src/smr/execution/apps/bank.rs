//! Accounts with transfers, after SmallBank (Alomari et al., ICDE 2008): conflicts on demand.
//!
//! | operation | bytes | result |
//! |---|---|---|
//! | deposit | `1`, account u64, amount u64, a memo of any length, which is not kept | the new balance |
//! | transfer | `2`, from u64, to u64, amount u64 | nothing |
//! | balance | `3`, account u64 | the balance |
//!
//! Every account exists and starts empty. Funds that do not suffice and a balance that would pass 2^64 − 1
//! are errors.

use super::MALFORMED;
use crate::smr::execution::{
    Application, Column, CrudState, Direct, OperationContext, PartitionedStore, ResultWriter, ScalableApp,
};

const DEPOSIT: u8 = 1;
const TRANSFER: u8 = 2;
const BALANCE: u8 = 3;

/// What is said of a transfer without the funds.
pub const INSUFFICIENT: &str = "insufficient funds";
/// What is said of a balance that would be too large.
pub const OVERFLOW: &str = "the balance would be too large";

const COLUMN: Column = Column(0);

/// The application.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bank;

fn operation(kind: u8, fields: &[u64]) -> Vec<u8> {
    let mut operation = Vec::with_capacity(1 + 8 * fields.len());
    operation.push(kind);
    for field in fields {
        operation.extend_from_slice(&field.to_le_bytes());
    }
    operation
}

/// The operation that adds `amount` to `account`.
#[must_use]
pub fn deposit(account: u64, amount: u64) -> Vec<u8> {
    operation(DEPOSIT, &[account, amount])
}

/// The same with a memo, so that the operation has `bytes` if that is more.
#[must_use]
pub fn deposit_with_memo(account: u64, amount: u64, bytes: usize) -> Vec<u8> {
    let mut operation = deposit(account, amount);
    operation.resize(bytes.max(operation.len()), b'm');
    operation
}

/// The operation that moves `amount` from one account to another.
#[must_use]
pub fn transfer(from: u64, to: u64, amount: u64) -> Vec<u8> {
    operation(TRANSFER, &[from, to, amount])
}

/// The operation that reads the balance of `account`.
#[must_use]
pub fn balance(account: u64) -> Vec<u8> {
    operation(BALANCE, &[account])
}

fn balance_of(value: Option<&[u8]>) -> u64 {
    let bytes = value.and_then(|value| value.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn load(state: &mut impl CrudState, account: u64) -> u64 {
    balance_of(state.read(COLUMN, &account.to_le_bytes()))
}

fn store(state: &mut impl CrudState, account: u64, balance: u64) {
    state.put(COLUMN, &account.to_le_bytes(), &balance.to_le_bytes());
}

fn answer(balance: u64, result: &mut ResultWriter) {
    result.extend_from_slice(&balance.to_le_bytes());
}

/// How many of an operation's fields are accounts.
fn accounts(kind: u8) -> usize {
    if kind == TRANSFER { 2 } else { 1 }
}

/// Kind and fields of an operation; `None` when its length fits no kind.
fn parse(operation: &[u8]) -> Option<(u8, [u64; 3])> {
    let (&kind, rest) = operation.split_first()?;
    let expected = match kind {
        DEPOSIT => 2,
        TRANSFER => 3,
        BALANCE => 1,
        _ => return None,
    };
    let (read, memo) = rest.split_at_checked(8 * expected)?;
    let mut fields = [0; 3];
    for (field, bytes) in fields.iter_mut().zip(read.as_chunks::<8>().0) {
        *field = u64::from_le_bytes(*bytes);
    }
    (memo.is_empty() || kind == DEPOSIT).then_some((kind, fields))
}

impl Application for Bank {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    fn update(
        &self,
        state: &mut PartitionedStore,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        self.speculatively_execute(&mut Direct(state), context, operation, result);
    }

    fn unordered_execution(
        &self,
        state: &PartitionedStore,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        match parse(operation) {
            Some((BALANCE, [account, ..])) => {
                answer(balance_of(state.get(&account.to_le_bytes())), result);
            }
            _ => result.fail(MALFORMED),
        }
    }

    fn prepare(&self, state: &PartitionedStore, operations: &[&[u8]]) {
        let parsed = operations.iter().filter_map(|operation| parse(operation));
        state.touch(parsed.flat_map(|(kind, fields)| {
            let accounts = fields.into_iter().take(accounts(kind));
            accounts.map(u64::to_le_bytes)
        }));
    }

    fn name(&self) -> &'static str {
        "bank"
    }
}

impl ScalableApp for Bank {
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        match parse(operation) {
            Some((DEPOSIT, [account, amount, _])) => match load(state, account).checked_add(amount) {
                Some(balance) => {
                    store(state, account, balance);
                    answer(balance, result);
                }
                None => result.fail(OVERFLOW),
            },
            Some((TRANSFER, [from, to, amount])) => {
                let Some(left) = load(state, from).checked_sub(amount) else {
                    return result.fail(INSUFFICIENT);
                };
                if from != to {
                    let Some(right) = load(state, to).checked_add(amount) else {
                        return result.fail(OVERFLOW);
                    };
                    store(state, from, left);
                    store(state, to, right);
                }
            }
            Some((_, [account, ..])) => answer(load(state, account), result),
            None => result.fail(MALFORMED),
        }
    }

    fn declare_keys(
        &self,
        _: &OperationContext,
        operation: &[u8],
        touch: &mut dyn FnMut(Column, &[u8]),
    ) -> bool {
        if let Some((kind, fields)) = parse(operation) {
            fields[..accounts(kind)]
                .iter()
                .for_each(|account| touch(COLUMN, &account.to_le_bytes()));
        }
        true
    }
}
