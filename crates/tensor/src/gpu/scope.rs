//! What error scopes catch.
//!
//! On native targets that is known when a scope ends. A browser answers later: what it has not said yet is kept,
//! and asked for by whoever waits for the device next, so that recording and compiling never block.

use super::{Gpu, lock};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

type Answer = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;

/// Answers of scopes that have not come yet, by operation.
#[derive(Default)]
pub(super) struct Late(Mutex<VecDeque<(&'static str, Answer)>>);

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers to come", lock(&self.0).len())
    }
}

impl Late {
    /// What `answer` says, if it says it now.
    fn ask(
        &self,
        operation: &'static str,
        mut answer: impl Future<Output = Option<wgpu::Error>> + Send + Unpin + 'static,
    ) -> Option<wgpu::Error> {
        match Pin::new(&mut answer).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(caught) => caught,
            Poll::Pending => {
                lock(&self.0).push_back((operation, Box::pin(answer)));
                None
            }
        }
    }

    /// The first error among all answers that were to come, with its operation.
    async fn first(&self) -> Option<(&'static str, wgpu::Error)> {
        loop {
            // Not in the loop's head, which would hold the lock while it waits.
            let next = lock(&self.0).pop_front();
            let (operation, answer) = next?;
            if let Some(e) = answer.await {
                return Some((operation, e));
            }
        }
    }
}

impl Gpu {
    /// What a scope has caught, where that is known now; elsewhere [`Self::late_errors`] has it.
    pub(super) fn caught(&self, operation: &'static str, scope: wgpu::ErrorScopeGuard) -> Option<wgpu::Error> {
        self.inner().late.ask(operation, scope.pop())
    }

    /// Fails with what scopes have caught that could not say so at once.
    pub(super) async fn late_errors(&self) -> Result<()> {
        match self.inner().late.first().await {
            None => Ok(()),
            Some((operation, wgpu::Error::OutOfMemory { .. })) => {
                Err(Error::OutOfMemory { operation, bytes: 0, device: self.summary().name.clone() })
            }
            Some((operation, e)) => Err(Error::Gpu { operation, message: e.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Option<wgpu::Error> {
        Some(wgpu::Error::Internal { source: "test".into(), description: text.to_owned() })
    }

    /// An answer that comes when it is asked for the second time, as a browser's may.
    fn later(mut answer: Option<wgpu::Error>) -> impl Future<Output = Option<wgpu::Error>> + Send + Unpin {
        let mut asked = false;
        std::future::poll_fn(move |cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(answer.take());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn answers_that_come_later_are_kept() {
        let late = Late::default();
        let description = |e: Option<wgpu::Error>| e.map(|e| e.to_string());
        assert_eq!(description(late.ask("one", std::future::ready(error("at once")))), description(error("at once")));
        for (operation, answer) in [("two", None), ("three", error("third")), ("four", None), ("five", error("fifth"))]
        {
            assert!(late.ask(operation, later(answer)).is_none());
        }
        assert_eq!(format!("{late:?}"), "4 answers to come");
        let first = || pollster::block_on(late.first()).map(|(operation, e)| (operation, e.to_string()));
        assert_eq!(first().unwrap().0, "three");
        assert_eq!(first().unwrap().0, "five");
        assert_eq!(first(), None);
    }
}
