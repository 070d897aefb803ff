use super::Partitioned;

/// A column of a keyed state: keys of different columns are different keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Column(pub u8);

/// A state made of byte strings under keys, each in a column.
///
/// A speculative executor writes what an operation wrote when its turn comes, so that there is nobody any
/// more to whom a panic in [`put`](Self::put) or [`remove`](Self::remove) could be told: it stops the
/// replica, unless it is that of a column that is [not there](Self::has_column).
pub trait KeyedState: Send + Sync {
    /// Whether there is such a column. To put something into another one is a panic, at once, whatever
    /// executes the operation. By default there are all.
    fn has_column(_column: Column) -> bool {
        true
    }

    /// The value of a key.
    fn get(&self, column: Column, key: &[u8]) -> Option<&[u8]>;

    /// Sets the value of a key.
    fn put(&mut self, column: Column, key: &[u8], value: &[u8]);

    /// Removes a key; true if it was there.
    fn remove(&mut self, column: Column, key: &[u8]) -> bool;
}

/// What an operation of a [`ScalableApp`](super::ScalableApp) acts on: the state, or a speculative view of
/// it.
///
/// A value that was read stays borrowed until the next call.
pub trait CrudState {
    /// Sets the value of a key that is not there; false, and nothing happens, when it is.
    fn create(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool;

    /// The value of a key.
    fn read(&mut self, column: Column, key: &[u8]) -> Option<&[u8]>;

    /// Sets the value of a key that is there; false, and nothing happens, when it is not.
    fn update(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool;

    /// Removes a key; true if it was there.
    fn delete(&mut self, column: Column, key: &[u8]) -> bool;

    /// Sets the value of a key whether it is there or not. Reads nothing, so it conflicts with no other
    /// write.
    fn put(&mut self, column: Column, key: &[u8], value: &[u8]);
}

/// The state itself: every call acts at once.
#[derive(Debug)]
pub struct Direct<'a, S>(pub &'a mut S);

impl<S: KeyedState> CrudState for Direct<'_, S> {
    fn create(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        let is_free = self.0.get(column, key).is_none();
        if is_free {
            self.0.put(column, key, value);
        }
        is_free
    }

    fn read(&mut self, column: Column, key: &[u8]) -> Option<&[u8]> {
        self.0.get(column, key)
    }

    fn update(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        let is_there = self.0.get(column, key).is_some();
        if is_there {
            self.0.put(column, key, value);
        }
        is_there
    }

    fn delete(&mut self, column: Column, key: &[u8]) -> bool {
        self.0.remove(column, key)
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.0.put(column, key, value);
    }
}

/// One column, number 0. Others have no keys.
///
/// # Panics
/// [`put`](KeyedState::put) panics for another column: the application asks for what its state does not have.
impl<const P: usize> KeyedState for Partitioned<P> {
    fn has_column(column: Column) -> bool {
        column == Column(0)
    }

    fn get(&self, column: Column, key: &[u8]) -> Option<&[u8]> {
        match column {
            Column(0) => Self::get(self, key),
            _ => None,
        }
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        assert!(
            <Self as KeyedState>::has_column(column),
            "the store has one column"
        );
        Self::put(self, key, value);
    }

    fn remove(&mut self, column: Column, key: &[u8]) -> bool {
        column == Column(0) && Self::delete(self, key)
    }
}
