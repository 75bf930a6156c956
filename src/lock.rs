//! Mutexes that a panic does not close.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes `mutex`, even after somebody panicked with it: what our mutexes keep is whole between any two statements, and
/// the panic itself is for whoever supervises the task.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
