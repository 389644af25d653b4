//! Threads of the CPU kernels: rayon's functions, or without the feature `cpu-threads` functions of the same names that
//! run everything on the calling thread.

#[cfg(feature = "cpu-threads")]
pub use rayon::{current_num_threads, join, prelude};

#[cfg(not(feature = "cpu-threads"))]
pub use alone::{current_num_threads, join, prelude};

#[cfg(not(feature = "cpu-threads"))]
mod alone {
    /// Number of threads that share work.
    pub fn current_num_threads() -> usize {
        1
    }

    /// Runs both closures, one after the other.
    pub fn join<A, B>(a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
        (a(), b())
    }

    /// Rayon's iterator methods, implemented with iterators of the standard library.
    pub mod prelude {
        use std::slice::{Chunks, ChunksExactMut, ChunksMut};

        /// Methods of slices.
        pub trait Parts<T> {
            /// Same as `chunks`.
            fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
            /// Same as `chunks_mut`.
            fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
            /// Same as `chunks_exact_mut`.
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

        /// Methods of everything that can be iterated over.
        pub trait IntoAlone: IntoIterator + Sized {
            /// Same as `into_iter`.
            fn into_par_iter(self) -> Self::IntoIter {
                self.into_iter()
            }
        }

        impl<I: IntoIterator> IntoAlone for I {}
    }
}
