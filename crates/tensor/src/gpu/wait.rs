//! Waiting for a device: futures that wgpu's callbacks complete, and the threads that poll the device.
//!
//! On native targets wgpu runs the callbacks of finished work only when a thread polls the device. A blocking call
//! ([`Gpu::block_on`]) polls itself; its futures are recognized by their waker. With any other executor, the first
//! future that has to wait starts a thread, which polls until no future waits; a device has at most one. In a browser
//! the browser runs the callbacks, and blocking is not possible.

use super::{Gpu, lock};
use crate::{Error, Result};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The state shared by a callback and the future that waits for it.
#[derive(Debug, Default)]
struct Event {
    outcome: Option<Result<(), String>>,
    waker: Option<Waker>,
}

/// A one-time event that a callback completes.
#[derive(Clone, Debug, Default)]
pub(super) struct Signal(Arc<Mutex<Event>>);

impl Signal {
    pub(super) fn complete(&self, outcome: Result<(), String>) {
        let waker = {
            let mut event = lock(&self.0);
            event.outcome.get_or_insert(outcome);
            event.waker.take()
        };
        // Woken after the lock is released, because an executor may poll the future at once, which takes the lock.
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn succeeded(&self) -> bool {
        matches!(lock(&self.0).outcome, Some(Ok(())))
    }
}

/// The futures that wait for a device, and the reason if the device was lost.
#[derive(Debug)]
pub(super) struct Waiting {
    lost: OnceLock<String>,
    events: Mutex<Events>,
    /// The waker of [`Gpu::block_on`]. Each device has its own, because a blocking call polls only its own device.
    blocking: Waker,
}

#[derive(Debug, Default)]
struct Events {
    /// The events that futures are waiting for.
    list: Vec<Weak<Mutex<Event>>>,
    /// Whether the thread that polls for them is running.
    driven: bool,
}

impl Events {
    /// The events that have not happened yet.
    fn open(&mut self) -> &[Weak<Mutex<Event>>] {
        self.list.retain(|e| e.upgrade().is_some_and(|e| lock(&e).outcome.is_none()));
        &self.list
    }
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { lost: OnceLock::new(), events: Mutex::default(), blocking: Waker::from(Arc::new(Blocking)) }
    }

    /// The first reason given for the loss of the device.
    pub(super) fn lost(&self) -> Option<&String> {
        self.lost.get()
    }

    /// Stores why the device was lost, and wakes all futures that wait for it.
    pub(super) fn lose(&self, reason: String) {
        let _ = self.lost.set(reason);
        let wakers: Vec<_> = lock(&self.events).list.iter().filter_map(|e| lock(&*e.upgrade()?).waker.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn fail(&self, message: &str) {
        let open: Vec<_> = lock(&self.events).open().iter().filter_map(Weak::upgrade).collect();
        open.into_iter().for_each(|e| Signal(e).complete(Err(message.into())));
    }
}

/// A waker that does nothing: [`Gpu::block_on`] polls its future again by itself.
struct Blocking;

impl Wake for Blocking {
    fn wake(self: Arc<Self>) {}
}

/// Resolves when a signal is completed or the device is lost.
struct Wait<'a> {
    gpu: &'a Gpu,
    signal: &'a Signal,
    operation: &'static str,
    listed: bool,
}

impl Future for Wait<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        {
            let mut event = lock(&self.signal.0);
            if let Some(outcome) = &event.outcome {
                let failed = |message: &String| Error::Gpu { operation: self.operation, message: message.clone() };
                return Poll::Ready(self.gpu.check_alive().and_then(|()| outcome.as_ref().map_err(failed).copied()));
            }
            event.waker = Some(cx.waker().clone());
        }
        if !self.listed {
            let mut events = lock(&self.gpu.inner().waiting.events);
            events.open();
            events.list.push(Arc::downgrade(&self.signal.0));
            self.listed = true;
        }
        // If the device was lost before the event was listed, the loss has not woken this future.
        if let Err(e) = self.gpu.check_alive() {
            return Poll::Ready(Err(e));
        }
        if !cx.waker().will_wake(&self.gpu.inner().waiting.blocking) && !self.gpu.start_driving() {
            // The polling thread could not be started, so the executor's thread polls the device here.
            let _ = self.gpu.inner().device.poll(wgpu::PollType::Poll);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Gpu {
    /// Returns an error if the device is lost.
    pub(crate) fn check_alive(&self) -> Result<()> {
        match self.inner().waiting.lost() {
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Resolves when a signal is completed.
    pub(super) async fn wait(&self, signal: &Signal, operation: &'static str) -> Result<()> {
        Wait { gpu: self, signal, operation, listed: false }.await
    }

    /// Runs a future to its end on this thread, polling the device meanwhile.
    ///
    /// # Errors
    /// Those of the future; [`Error::Unsupported`] in a browser if it has to wait.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut future = pin!(future);
        let waiting = &self.inner().waiting;
        let mut cx = Context::from_waker(&waiting.blocking);
        let (mut driven, mut idle) = (false, None::<Instant>);
        loop {
            if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
                return out;
            }
            if cfg!(target_arch = "wasm32") {
                let device = self.summary().name.clone();
                return Err(Error::Unsupported { operation: "wait", feature: "blocking; use the async form", device });
            }
            if driven {
                // Another polling thread may have taken the callback and not called it yet, so that our wait may end
                // before the callback has run. It will run soon, because the work is finished.
                let expected = !lock(&waiting.events).open().is_empty();
                idle = expected.then(|| idle.unwrap_or_else(Instant::now));
                if idle.is_some_and(|since| since.elapsed() > Duration::from_secs(10)) {
                    return Err(Error::Gpu { operation: "wait", message: "the device did not answer".into() });
                }
                std::thread::yield_now();
            }
            self.drive();
            driven = true;
        }
    }

    /// Waits until all submitted work has run, and runs the callbacks.
    fn drive(&self) {
        if let Err(e) = self.inner().device.poll(wgpu::PollType::wait_indefinitely()) {
            self.inner().waiting.fail(&e.to_string());
        }
    }

    /// Starts the polling thread unless it is running. Returns whether one is running.
    fn start_driving(&self) -> bool {
        if cfg!(target_arch = "wasm32") {
            return true;
        }
        let mut events = lock(&self.inner().waiting.events);
        if !events.driven {
            let gpu = self.clone();
            let thread = std::thread::Builder::new().name("recurve-gpu".into());
            events.driven = thread.spawn(move || gpu.drive_all()).is_ok();
        }
        events.driven
    }

    fn drive_all(&self) {
        loop {
            self.drive();
            let mut events = lock(&self.inner().waiting.events);
            if events.open().is_empty() || self.check_alive().is_err() {
                events.driven = false;
                return;
            }
            drop(events);
            std::thread::yield_now();
        }
    }
}
