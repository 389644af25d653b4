//! Errors caught by wgpu's error scopes.
//!
//! On native targets the result of a scope is known when it ends. In a browser it comes later: it is then kept, and
//! checked by the next future that waits for the device, so that recording and compiling never block.

use super::{Gpu, lock};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

type Answer = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;

/// Scopes whose results are not known yet, each with its operation.
#[derive(Default)]
pub(super) struct Late(Mutex<VecDeque<(&'static str, Answer)>>);

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers to come", lock(&self.0).len())
    }
}

impl Late {
    /// The result of a scope, if it is known at once; otherwise it is kept in `late`.
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

    /// The first error among all kept scopes, with its operation.
    async fn first(&self) -> Option<(&'static str, wgpu::Error)> {
        loop {
            // A separate statement: in the head of the loop it would hold the lock while waiting.
            let next = lock(&self.0).pop_front();
            let (operation, answer) = next?;
            if let Some(e) = answer.await {
                return Some((operation, e));
            }
        }
    }
}

impl Gpu {
    /// The error that a scope has caught, if it is known at once; otherwise [`Self::late_errors`] reports it.
    pub(super) fn caught(&self, operation: &'static str, scope: wgpu::ErrorScopeGuard) -> Option<wgpu::Error> {
        self.inner().late.ask(operation, scope.pop())
    }

    /// Returns the first error of the scopes whose results came late.
    pub(super) async fn late_errors(&self) -> Result<()> {
        match self.inner().late.first().await {
            None => Ok(()),
            Some((operation, wgpu::Error::OutOfMemory { .. })) => {
                Err(Error::memory(operation, 0, &*self.summary().name))
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

    /// A result that is ready when it is polled for the second time, as in a browser.
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
