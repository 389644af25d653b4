//! A pool of buffers for reuse, used for the CPU and for GPUs.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Buffers by size class. The pool holds one reference to every buffer that it has handed out. A buffer to which only
/// the pool has a reference is free and can be handed out again, so repeated calls of the same shapes allocate nothing,
/// not even a reference count.
#[derive(Debug)]
pub(crate) struct Pool<K, B> {
    classes: HashMap<K, Vec<Arc<B>>>,
    bytes: u64,
    made: u64,
}

/// Size of free buffers, in bytes, that the pool always keeps instead of giving them back to the system.
const IDLE_ALLOWANCE: u64 = 256 << 20;

impl<K: Copy + Eq + Hash, B> Pool<K, B> {
    pub(crate) fn new() -> Self {
        Self { classes: HashMap::new(), bytes: 0, made: 0 }
    }

    /// Takes a free buffer of this class for which `fits` holds.
    pub(crate) fn take(&mut self, class: K, fits: impl Fn(&B) -> bool) -> Option<Arc<B>> {
        let list = self.classes.get_mut(&class)?;
        let free = list.iter().position(|b| Arc::strong_count(b) == 1 && fits(b))?;
        Some(list.swap_remove(free))
    }

    /// Gives up the reference to a buffer that only one other has, until [`Self::put_back`]. Returns whether there was one.
    pub(crate) fn take_back(&mut self, class: K, buffer: &Arc<B>) -> bool {
        let Some(list) = self.classes.get_mut(&class).filter(|_| Arc::strong_count(buffer) == 2) else { return false };
        let place = list.iter().position(|b| Arc::ptr_eq(b, buffer));
        place.inspect(|&n| drop(list.swap_remove(n))).is_some()
    }

    /// Returns a buffer that [`Self::take`] gave.
    pub(crate) fn put_back(&mut self, class: K, buffer: Arc<B>) {
        self.classes.entry(class).or_default().push(buffer);
    }

    /// Counts a new buffer of `bytes`, which is returned with [`Self::put_back`] when it can be reused.
    pub(crate) fn count_new(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.made += 1;
    }

    /// Counts a buffer of `bytes` that was taken or counted as new and will not be returned.
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) fn count_lost(&mut self, bytes: u64) {
        self.bytes -= bytes;
    }

    /// Adds a new buffer of `bytes`.
    pub(crate) fn put_new(&mut self, class: K, buffer: Arc<B>, bytes: u64) {
        self.count_new(bytes);
        self.put_back(class, buffer);
    }

    /// Frees all unused buffers; `size` gives the size of a buffer in bytes. Returns whether any was freed.
    pub(crate) fn trim(&mut self, size: impl Fn(&B) -> u64) -> bool {
        let before = self.bytes;
        for list in self.classes.values_mut() {
            list.retain(|b| {
                let used = Arc::strong_count(b) > 1;
                if !used {
                    self.bytes -= size(b);
                }
                used
            });
        }
        self.classes.retain(|_, list| !list.is_empty());
        self.bytes < before
    }

    /// Whether the unused buffers are larger than those in use, so that [`Self::trim`] should run before a new buffer
    /// is made.
    pub(crate) fn is_wasteful(&self, size: impl Fn(&B) -> u64) -> bool {
        if self.bytes < IDLE_ALLOWANCE {
            return false;
        }
        let idle: u64 = self.classes.values().flatten().filter(|b| Arc::strong_count(b) == 1).map(|b| size(b)).sum();
        idle > IDLE_ALLOWANCE.max(self.bytes - idle)
    }

    /// Size of all buffers, used or unused, in bytes.
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of buffers made since the pool exists.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reuses_only_what_is_free() {
        let mut pool = Pool::new();
        let a = Arc::new(vec![0u8; 8]);
        pool.put_new(8, a.clone(), 8);
        assert!(pool.take(8, |_| true).is_none(), "in use");
        drop(a);
        assert!(pool.take(9, |_| true).is_none(), "another class");
        assert!(pool.take(8, |_| false).is_none(), "does not fit");
        let again = pool.take(8, |_| true).expect("free");
        pool.put_back(8, again);
        assert_eq!((pool.made(), pool.bytes()), (1, 8));
        assert!(pool.trim(|b| b.len() as u64));
        assert_eq!(pool.bytes(), 0);
        assert!(!pool.trim(|b| b.len() as u64));
    }
}
