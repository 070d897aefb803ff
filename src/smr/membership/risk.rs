use super::{ClientAuth, Membership};

/// What an operator must know of before signing a change that is possible. It refuses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Risk {
    /// Fewer than four members.
    #[error("{members} members tolerate no fault: for development only; four tolerate one")]
    NoFaultTolerated {
        /// How many members there are.
        members: usize,
    },
    /// Fewer faults are tolerated than before.
    #[error("{after} faulty members are tolerated instead of {before}")]
    FewerFaultsTolerated {
        /// How many before.
        before: usize,
        /// How many after.
        after: usize,
    },
    /// Members that add work and no tolerance.
    #[error(
        "{members} members tolerate {faults} faulty ones, as {enough} do: more have to agree, and nothing is \
         gained"
    )]
    MoreMembersThanNeeded {
        /// How many members there are.
        members: usize,
        /// How many may be faulty.
        faults: usize,
        /// How many would do.
        enough: usize,
    },
    /// More members are new than may be absent: the epoch decides nothing before one of them has the state.
    #[error(
        "{new} of {members} members are new, and {faults} may be absent: nothing is decided until enough of \
         them have the state; replace fewer at once"
    )]
    WaitsForNewMembers {
        /// How many are new.
        new: usize,
        /// How many there are.
        members: usize,
        /// How many may be absent.
        faults: usize,
    },
    /// So few members stay that all of them may be faulty: then no correct member of the next epoch has the
    /// state.
    #[error(
        "{staying} members stay, and {faults} of the old ones may be faulty: the next epoch depends on those \
         who leave for its state; keep them running until it has it"
    )]
    StateMayBeLost {
        /// How many stay.
        staying: usize,
        /// How many of the old ones may be faulty.
        faults: usize,
    },
    /// One operator's key is enough.
    #[error("one operator alone can change everything: whoever steals that key has the cluster")]
    OneOperator,
    /// Every operator is needed.
    #[error("all {operators} operators have to sign: when one key is lost, nothing can be changed any more")]
    EveryOperatorNeeded {
        /// How many there are.
        operators: usize,
    },
    /// So few of the next operators are operators now that it depends on keys nobody has seen used.
    #[error(
        "{known} of the next operators are operators already, {threshold} have to sign: if a new key is \
         wrong, nothing can be changed any more"
    )]
    OperatorsUnproven {
        /// How many are.
        known: usize,
        /// How many have to sign.
        threshold: usize,
    },
    /// Clients may prove frames by MACs from now on.
    #[error(
        "clients prove frames by MACs: cheaper, but a lying client can convince some members and not others, \
         and delays proposals until it has to sign"
    )]
    MacsProveFrames,
    /// Nobody may hand in the next change.
    #[error("no client has the right to hand in changes: operators need one that does")]
    NoAdminClient,
    /// Releases that do not speak the new version stop.
    #[error("members and clients whose release does not speak protocol version {version} take part no more")]
    ProtocolRaised {
        /// The new version.
        version: u16,
    },
    /// Programs that do not have the new version stop.
    #[error("members whose program does not have application version {version} take part no more")]
    ApplicationActivated {
        /// The new version.
        version: u32,
    },
}

impl Risk {
    /// What is risky about following `base` by `next`, in the order in which the kinds are declared.
    #[must_use]
    pub fn of(base: &Membership, next: &Membership) -> Vec<Self> {
        let mut risks = Vec::new();
        of_members(base, next, &mut risks);
        of_operators(base, next, &mut risks);
        let (before, after) = (base.head(), next.head());
        if after.agreement().client_auth == ClientAuth::Mac
            && before.agreement().client_auth != ClientAuth::Mac
        {
            risks.push(Self::MacsProveFrames);
        }
        if !next.clients().iter().any(|client| client.rights.admin) {
            risks.push(Self::NoAdminClient);
        }
        if after.protocol_version() != before.protocol_version() {
            let version = after.protocol_version();
            risks.push(Self::ProtocolRaised { version });
        }
        if after.application() != before.application() {
            let version = after.application().version();
            risks.push(Self::ApplicationActivated { version });
        }
        risks
    }
}

fn of_members(base: &Membership, next: &Membership, risks: &mut Vec<Risk>) {
    let (before, after) = (base.head().quorum(), next.head().quorum());
    let (members, faults) = (after.n(), after.f());
    if faults == 0 {
        risks.push(Risk::NoFaultTolerated { members });
    }
    if faults < before.f() {
        let (before, after) = (before.f(), faults);
        risks.push(Risk::FewerFaultsTolerated { before, after });
    }
    let enough = 3 * faults + 1;
    if members != enough {
        risks.push(Risk::MoreMembersThanNeeded {
            members,
            faults,
            enough,
        });
    }
    let known = |node| base.head().slot_of(node).is_some();
    let staying = next
        .head()
        .members()
        .iter()
        .filter(|member| known(member.id))
        .count();
    let new = members - staying;
    if new > faults {
        risks.push(Risk::WaitsForNewMembers { new, members, faults });
    }
    if new > 0 && staying <= before.f() {
        let faults = before.f();
        risks.push(Risk::StateMayBeLost { staying, faults });
    }
}

fn of_operators(base: &Membership, next: &Membership, risks: &mut Vec<Risk>) {
    let (before, after) = (base.head().operators(), next.head().operators());
    let (threshold, operators) = (after.threshold(), after.keys().len());
    if threshold == 1 {
        risks.push(Risk::OneOperator);
    }
    if threshold == operators {
        risks.push(Risk::EveryOperatorNeeded { operators });
    }
    let known = after.keys().iter().filter(|key| before.has(key)).count();
    if known < threshold {
        risks.push(Risk::OperatorsUnproven { known, threshold });
    }
}
