//! Waiting for a device: futures that its callbacks complete, and who drives it meanwhile.
//!
//! On native targets wgpu runs the callbacks of finished work when somebody polls the device. A blocking call
//! ([`Gpu::block_on`]) does that itself, and is known by its waker. For any other executor the first future that
//! has to wait starts a thread, which polls until nobody waits any more; there is one for a device at most. In a
//! browser the browser runs the callbacks, and nothing can block.

use super::{Gpu, lock};
use crate::{Error, Result};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// What a callback leaves for the one who waits for it.
#[derive(Debug, Default)]
struct Event {
    outcome: Option<Result<(), String>>,
    waker: Option<Waker>,
}

/// Completed by a callback, once.
#[derive(Clone, Debug, Default)]
pub(super) struct Signal(Arc<Mutex<Event>>);

impl Signal {
    pub(super) fn complete(&self, outcome: Result<(), String>) {
        let waker = {
            let mut event = lock(&self.0);
            event.outcome.get_or_insert(outcome);
            event.waker.take()
        };
        // An executor may poll the future at once, which takes the lock.
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn succeeded(&self) -> bool {
        matches!(lock(&self.0).outcome, Some(Ok(())))
    }
}

/// Who waits for a device, and why it was lost if it was.
#[derive(Debug)]
pub(super) struct Waiting {
    lost: OnceLock<String>,
    events: Mutex<Events>,
    /// The waker of [`Gpu::block_on`]. Each device has its own: a blocking call drives no other.
    blocking: Waker,
}

#[derive(Debug, Default)]
struct Events {
    /// Events that somebody has begun to wait for.
    list: Vec<Weak<Mutex<Event>>>,
    /// Whether a thread polls the device for them.
    driven: bool,
}

impl Events {
    /// Those that are still to come.
    fn open(&mut self) -> &[Weak<Mutex<Event>>] {
        self.list.retain(|e| e.upgrade().is_some_and(|e| lock(&e).outcome.is_none()));
        &self.list
    }
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { lost: OnceLock::new(), events: Mutex::default(), blocking: Waker::from(Arc::new(Blocking)) }
    }

    /// The first reason for which the device was lost.
    pub(super) fn lost(&self) -> Option<&String> {
        self.lost.get()
    }

    /// Notes why the device was lost, and wakes all who wait for what it will not do any more.
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

/// Wakes nobody: [`Gpu::block_on`] looks again by itself.
struct Blocking;

impl Wake for Blocking {
    fn wake(self: Arc<Self>) {}
}

/// Resolves when a signal is completed, or the device is lost.
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
        // If it was lost before the event was listed, nobody has woken us.
        if let Err(e) = self.gpu.check_alive() {
            return Poll::Ready(Err(e));
        }
        if !cx.waker().will_wake(&self.gpu.inner().waiting.blocking) && !self.gpu.start_driving() {
            // No thread is to be had: whoever runs this executor drives the device, a little at a time.
            let _ = self.gpu.inner().device.poll(wgpu::PollType::Poll);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Gpu {
    /// Fails if the device is gone.
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

    /// Runs a future on this thread, which drives the device while it waits.
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
                // Another thread that polls may have taken the callback over and not called it yet, so the end of
                // our own wait does not mean that it has run. It is about to: the work is done.
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

    /// Waits until what has been submitted has run, and runs the callbacks.
    fn drive(&self) {
        if let Err(e) = self.inner().device.poll(wgpu::PollType::wait_indefinitely()) {
            self.inner().waiting.fail(&e.to_string());
        }
    }

    /// Starts the thread that polls for all who wait, unless there is one. Returns whether somebody polls.
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
