//! Buffers kept for reuse, for the CPU and for GPUs alike.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Buffers by size class. The pool holds one reference to every buffer it has handed out; a buffer
/// whose only reference that is can be handed out again. A steady state therefore allocates
/// nothing, not even a reference count.
#[derive(Debug)]
pub(crate) struct Pool<K, B> {
    classes: HashMap<K, Vec<Arc<B>>>,
    bytes: u64,
    made: u64,
}

/// Memory that may lie idle before it is given back, whatever is in use.
const IDLE_ALLOWANCE: u64 = 256 << 20;

impl<K: Copy + Eq + Hash, B> Pool<K, B> {
    pub(crate) fn new() -> Self {
        Self { classes: HashMap::new(), bytes: 0, made: 0 }
    }

    /// A free buffer of this class for which `fits` holds.
    pub(crate) fn take(&mut self, class: K, fits: impl Fn(&B) -> bool) -> Option<Arc<B>> {
        let list = self.classes.get_mut(&class)?;
        let free = list.iter().position(|b| Arc::strong_count(b) == 1 && fits(b))?;
        Some(list.swap_remove(free))
    }

    /// Keeps a buffer from [`Self::take`] again.
    pub(crate) fn put_back(&mut self, class: K, buffer: Arc<B>) {
        self.classes.entry(class).or_default().push(buffer);
    }

    /// Counts a new buffer of `bytes`, which is to be put back when it may be reused.
    pub(crate) fn count_new(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.made += 1;
    }

    /// Counts a buffer of `bytes` from [`Self::take`], or one counted as new, that does not come back.
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) fn count_lost(&mut self, bytes: u64) {
        self.bytes -= bytes;
    }

    /// Keeps a new buffer of `bytes`.
    pub(crate) fn put_new(&mut self, class: K, buffer: Arc<B>, bytes: u64) {
        self.count_new(bytes);
        self.put_back(class, buffer);
    }

    /// Drops every free buffer; `size` gives the bytes of a buffer. Returns whether any was freed.
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

    /// Whether idle memory outweighs what is in use, so that a new buffer should rather wait for
    /// [`Self::trim`].
    pub(crate) fn is_wasteful(&self, size: impl Fn(&B) -> u64) -> bool {
        if self.bytes < IDLE_ALLOWANCE {
            return false;
        }
        let idle: u64 = self.classes.values().flatten().filter(|b| Arc::strong_count(b) == 1).map(|b| size(b)).sum();
        idle > IDLE_ALLOWANCE.max(self.bytes - idle)
    }

    /// Bytes held, in use or not.
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Buffers made since the beginning.
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
