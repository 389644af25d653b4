//! Threads of a module with shared memory: the engine's, and workers that each hold an instance of the module
//! (`js/thread.js`). Together they are rayon's pool.

use rayon::{ThreadBuilder, ThreadPoolBuilder};
use recurve_web_errors::{Result, thrown_with};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use wasm_bindgen::prelude::*;

/// Threads of the pool that no worker runs yet.
static NEW: Mutex<Vec<ThreadBuilder>> = Mutex::new(Vec::new());
static CAME: Condvar = Condvar::new();
/// Memory for `give_up`, which may be called because there is no other.
static RESERVE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory that the instances of the module share.
#[wasm_bindgen]
pub fn shared_memory() -> JsValue {
    wasm_bindgen::memory()
}

/// Makes a pool of the calling thread and of `count - 1` workers, which must be about to call `work`.
#[wasm_bindgen]
pub fn start_threads(count: usize) -> Result<()> {
    *lock(&RESERVE) = vec![0; 1 << 16];
    let pool = ThreadPoolBuilder::new().num_threads(count).use_current_thread().spawn_handler(|thread| {
        lock(&NEW).push(thread);
        CAME.notify_one();
        Ok(())
    });
    pool.build_global().map_err(|e| thrown_with("Internal", &format!("{count} threads cannot be started: {e}")))
}

/// What a worker does, for good.
#[wasm_bindgen]
pub fn work() {
    let mut new = lock(&NEW);
    let thread = loop {
        match new.pop() {
            Some(thread) => break thread,
            None => new = CAME.wait(new).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(new);
    thread.run();
}

/// Called by a worker that has trapped. The engine's thread may be waiting for the worker's part of a call, which will
/// not come, so it is made to trap too.
#[wasm_bindgen]
pub fn give_up() {
    static CALLED: AtomicBool = AtomicBool::new(false);
    if !CALLED.swap(true, Ordering::Relaxed) {
        drop(std::mem::take(&mut *lock(&RESERVE)));
        rayon::spawn_broadcast(|thread| {
            if thread.index() == 0 {
                std::process::abort();
            }
        });
    }
}

/// For tests: a call of which a worker's part panics.
#[wasm_bindgen]
pub fn panic_in_worker() {
    rayon::broadcast(|thread| assert!(thread.index() == 0, "a panic in a worker"));
}
