//! Threads of the CPU kernels: rayon's, or without the feature `cpu-threads` the calling thread alone under the
//! same names.

#[cfg(feature = "cpu-threads")]
pub use rayon::{current_num_threads, join, prelude};

#[cfg(not(feature = "cpu-threads"))]
pub use alone::{current_num_threads, join, prelude};

#[cfg(not(feature = "cpu-threads"))]
mod alone {
    /// Threads that share work.
    pub fn current_num_threads() -> usize {
        1
    }

    /// Runs both, one after the other.
    pub fn join<A, B>(a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
        (a(), b())
    }

    /// What rayon's iterators are called, as iterators of the standard library.
    pub mod prelude {
        use std::slice::{Chunks, ChunksExactMut, ChunksMut};

        /// Parts of slices.
        pub trait Parts<T> {
            /// As `chunks`.
            fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
            /// As `chunks_mut`.
            fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
            /// As `chunks_exact_mut`.
            fn par_chunks_exact_mut(&mut self, size: usize) -> ChunksExactMut<'_, T>;
        }

        impl<T> Parts<T> for [T] {
            fn par_chunks(&self, size: usize) -> Chunks<'_, T> {
                self.chunks(size)
            }

            fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
                self.chunks_mut(size)
            }

            fn par_chunks_exact_mut(&mut self, size: usize) -> ChunksExactMut<'_, T> {
                self.chunks_exact_mut(size)
            }
        }

        /// Everything that can be gone through.
        pub trait IntoAlone: IntoIterator + Sized {
            /// As `into_iter`.
            fn into_par_iter(self) -> Self::IntoIter {
                self.into_iter()
            }
        }

        impl<I: IntoIterator> IntoAlone for I {}
    }
}
