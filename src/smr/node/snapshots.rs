/// Which snapshots of the own state may be believed, while a state of others may take its place: whoever keeps
/// snapshots on disk asks.
///
/// A snapshot is written beside execution, and is done when the state it shows may have been found wrong, or
/// replaced. So each is marked with how many states had been [installed](Self::installed) when it was taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotTrust {
    is_replaced: bool,
    installed: u64,
}

impl SnapshotTrust {
    /// The state that execution has is wrong, or is about to be replaced: no snapshot of it is believed any more.
    pub const fn distrust(&mut self) {
        self.is_replaced = true;
    }

    /// Execution has another state: what is taken from now on shows that one.
    pub const fn installed(&mut self) {
        self.is_replaced = false;
        self.installed += 1;
    }

    /// Whether a snapshot is believed that was taken after so many states had been installed.
    #[must_use]
    pub const fn believes(&self, installed: u64) -> bool {
        !self.is_replaced && installed == self.installed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_of_a_state_that_is_replaced_is_believed_neither_before_nor_after() {
        let mut trust = SnapshotTrust::default();
        assert!(trust.believes(0));
        trust.distrust();
        assert!(!trust.believes(0));
        trust.installed();
        assert!(
            !trust.believes(0),
            "it was written slowly, and shows the state before"
        );
        assert!(trust.believes(1));
    }
}
