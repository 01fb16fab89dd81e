//! What every RPC shares: a task that carries it to its end, a panic boundary, a line in the log, a metric.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tonic::{Code, Response, Status};

use crate::metrics::Metrics;

/// How much of a volume's id the log shows. No id of ours is longer.
const LONGEST_ID: usize = 128;

/// The answer to an RPC.
pub(super) type Answer<T> = Result<Response<T>, Status>;

/// The calls of one server.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    driver: Arc<str>,
    metrics: Arc<Metrics>,
    running: TaskTracker,
}

impl Calls {
    pub(super) fn new(driver: &str, metrics: Arc<Metrics>) -> Calls {
        Calls { driver: driver.into(), metrics, running: TaskTracker::new() }
    }

    /// Carries a call to its end, also when the caller has gone or its deadline (`grpc-timeout`, which the server keeps) has
    /// passed: what has begun to write must not stop half-way. A repeated call is ABORTED until then.
    ///
    /// `method` is the whole path, as metrics name it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        method: &'static str,
        volume: &str,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Answer<T> {
        let (answer, caller) = oneshot::channel();
        let volume = volume[..volume.floor_char_boundary(LONGEST_ID)].to_string();
        let calls = self.clone();
        self.running.spawn(async move {
            let started = Instant::now();
            let result = calls.guarded(work).await;
            calls.report(method, &volume, result.as_ref().err(), started, answer.is_closed());
            let _ = answer.send(result.map(Response::new));
        });
        caller.await.unwrap_or_else(|_| Err(defect()))
    }

    /// Answers an RPC that no capability declares.
    pub(super) async fn not_declared<T: Send + 'static>(&self, method: &'static str) -> Answer<T> {
        let name = method.rsplit('/').next().unwrap_or(method);
        let sentence = format!("Pith has no {name}: its capabilities do not declare it");
        self.run(method, "", async { Err(Status::unimplemented(sentence)) }).await
    }

    /// Waits for every call that was begun.
    pub(super) async fn finish(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// The work, or an error where it panicked: a defect costs its own call only.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let mut work = pin!(work);
        poll_fn(|context| {
            catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))).unwrap_or_else(|_| {
                self.metrics.panics.inc();
                Poll::Ready(Err(defect()))
            })
        })
        .await
    }

    /// One line and one observation for each call, with names and never with content.
    fn report(&self, method: &'static str, volume: &str, error: Option<&Status>, started: Instant, caller_gone: bool) {
        let code = code_name(error.map_or(Code::Ok, Status::code));
        let took = started.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.metrics.csi_call(&self.driver, method, code, took);
        match error {
            None => tracing::info!(method, volume, code, micros, caller_gone, "call answered"),
            Some(error) => {
                let error = error.message();
                tracing::warn!(method, volume, code, micros, caller_gone, error, "call refused");
            }
        }
    }
}

/// The RPCs of a service that no capability declares. Written as what `async_trait` would make of them, because it does not
/// look into a macro.
macro_rules! not_declared {
    ($service:literal: $($method:ident, $name:literal: $request:ty => $response:ty;)*) => {$(
        fn $method<'call>(
            self: Arc<Self>,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'call>>
        where
            Self: 'call,
        {
            Box::pin(async move { self.calls.not_declared(concat!("/", $service, "/", $name)).await })
        }
    )*};
}
pub(super) use not_declared;

fn defect() -> Status {
    Status::internal("Pith failed while it handled this call, which is a defect: its log says where")
}

/// The name that csi-lib-utils gives to a code, so that dashboards read both alike.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
