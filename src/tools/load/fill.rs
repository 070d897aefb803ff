use std::collections::VecDeque;

use futures_lite::future::{block_on, poll_once};

use crate::client::{CallError, Client};
use crate::smr::execution::apps::kv;

/// What a key-value store is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filling {
    /// The first key: eight bytes, the number.
    pub first_key: u64,
    /// How many keys.
    pub keys: u64,
    /// The size of each value, in bytes.
    pub value_bytes: usize,
    /// Operations under way at once.
    pub outstanding: usize,
}

/// Puts every key once, through the order like any client.
///
/// # Errors
/// When an operation fails.
pub fn fill(client: &Client, filling: Filling) -> Result<(), CallError> {
    let mut under_way = VecDeque::with_capacity(filling.outstanding);
    let value = vec![b'v'; filling.value_bytes];
    for key in filling.first_key..filling.first_key + filling.keys {
        if under_way.len() >= filling.outstanding.max(1)
            && let Some(first) = under_way.pop_front()
        {
            block_on(first)?;
        }
        let operation = kv::put(&key.to_be_bytes(), &value).expect("a key of eight bytes is not too long");
        let mut call = Box::pin(client.call(operation));
        // Polled once, a call is on its way.
        match block_on(poll_once(&mut call)) {
            Some(result) => drop(result?),
            None => under_way.push_back(call),
        }
    }
    under_way
        .into_iter()
        .try_for_each(|call| block_on(call).map(drop))
}
