use std::sync::{Arc, Mutex, PoisonError};

/// The filter of a program's logs, as its admin endpoint shows and changes it. The default is none: a library
/// does not know how its program logs. Clones are equal.
#[derive(Clone, Default)]
pub struct LogFilter(Option<Arc<Inner>>);

/// Has something else logged, or says why not.
type Change = dyn Fn(&str) -> Result<(), String> + Send + Sync;

struct Inner {
    current: Mutex<String>,
    change: Box<Change>,
}

impl LogFilter {
    /// One that logs this now, and another once `change` took it. What `change` refuses, with a reason in
    /// words, is not logged.
    #[must_use]
    pub fn new(
        current: impl Into<String>,
        change: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(Inner {
            current: Mutex::new(current.into()),
            change: Box::new(change),
        })))
    }

    /// What is logged; `None` if that is not known.
    #[must_use]
    pub fn current(&self) -> Option<String> {
        let inner = self.0.as_ref()?;
        let current = inner.current.lock().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }

    /// Logs something else from now on.
    ///
    /// # Errors
    /// In words, when the filter is none.
    pub fn change(&self, filter: &str) -> Result<(), String> {
        let Some(inner) = &self.0 else {
            return Err("this program does not let its logs be changed".to_owned());
        };
        let mut current = inner.current.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.change)(filter)?;
        filter.clone_into(&mut current);
        Ok(())
    }
}

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogFilter").field(&self.current()).finish()
    }
}
