//! What a client complains about on its standard error, kept for the sentences of errors, and what is to be done about it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::Level;

use super::locked;

/// How long the line is waited for that says why a request failed: the client writes it before it answers.
const LINE: Duration = Duration::from_millis(50);
/// What the lines of the WebDAV server begin with. They name a request, and its error as an application would see it.
const OF_A_REQUEST: &str = "WEBDAV [";
/// What all lines say that come between the one with the reason and that of the request.
const OF_A_LAYER: &str = "input/output error";

/// The complaints of one process.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: Mutex<Said>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Said {
    /// The last of the worst.
    worst: Option<(Level, String)>,
    /// The last that gives a reason.
    reason: Option<(Instant, String)>,
    /// The last error of a request.
    request: Option<(Instant, String)>,
}

impl Complaints {
    /// Notes a line.
    pub(super) fn note(&self, level: Level, message: &str) {
        let now = (Instant::now(), message.to_string());
        let mut said = locked(&self.said);
        if said.worst.as_ref().is_none_or(|(kept, _)| level <= *kept) {
            said.worst = Some((level, message.to_string()));
        }
        if message.starts_with(OF_A_REQUEST) || message.ends_with(OF_A_LAYER) {
            said.request = Some(now);
        } else {
            said.reason = Some(now);
        }
        drop(said);
        self.news.notify_waiters();
    }

    /// The last of the worst, with what to do about it.
    pub(super) fn worst(&self) -> Option<String> {
        locked(&self.said).worst.as_ref().map(|(_, message)| explained(message))
    }

    /// Why a request that was made at this moment failed: what was complained about since, with what to do about it.
    pub(super) async fn since(&self, moment: Instant) -> Option<String> {
        let reason = async {
            loop {
                let news = self.news.notified();
                if let Some((at, message)) = &locked(&self.said).reason
                    && *at >= moment
                {
                    return explained(message);
                }
                news.await;
            }
        };
        match timeout(LINE, reason).await {
            Ok(reason) => Some(reason),
            Err(_) => {
                let request = locked(&self.said).request.clone().filter(|(at, _)| *at >= moment);
                request.map(|(_, message)| explained(message.rsplit("ERROR: ").next().unwrap_or(&message)))
            }
        }
    }
}

/// A complaint behind what is to be done about it, where that is known. What is to be done comes first: sentences are cut at their end.
fn explained(complaint: &str) -> String {
    advice(complaint).map_or_else(|| complaint.to_string(), |advice| format!("{advice} ({complaint})"))
}

/// What is to be done about what the client, the metadata engine or the kernel says.
fn advice(complaint: &str) -> Option<&'static str> {
    const KNOWN: [(&[&str], &str); 8] = [
        (
            &["WRONGPASS", "NOAUTH", "password authentication failed", "Access denied for user"],
            "the metadata engine does not take the password: look at `metaurl` and `meta-password` in the Secret",
        ),
        (&["READONLY You can't"], "the metadata engine is a read-only replica: `metaurl` must name its primary"),
        (&["OOM command"], "the memory of Redis is full: it needs a larger `maxmemory`"),
        (
            &["EXECABORT"],
            "Redis refuses to write: its memory is full (`maxmemory`), or it became a read-only replica, or its disk is full",
        ),
        (&["LOADING Redis"], "Redis still reads its data after a start, which passes"),
        (
            &["incompatible metadata version", "allowed minimum version"],
            "the file system is of a newer JuiceFS than the client that Pith runs: it needs a newer client",
        ),
        (&["no space left on device"], "the object storage, or the memory of the metadata engine, is full"),
        (&["read-only file system"], "the object storage is read-only"),
    ];
    let known = KNOWN.iter().find(|(patterns, _)| patterns.iter().any(|pattern| complaint.contains(pattern)));
    known.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_explained_and_anything_else_is_shown_as_it_is() {
        let wrong = "load setting: WRONGPASS invalid username-password pair or user is disabled.";
        let expected =
            "the metadata engine does not take the password: look at `metaurl` and `meta-password` in the Secret";
        assert_eq!(explained(wrong), format!("{expected} ({wrong})"));
        assert_eq!(explained("Load setting: refused"), "Load setting: refused");
    }

    #[tokio::test]
    async fn the_reason_counts_before_the_error_of_the_request_and_what_was_said_before_does_not_count() {
        let complaints = Complaints::default();
        complaints.note(Level::WARN, "an old one");
        let begun = Instant::now();
        assert_eq!(complaints.since(begun).await, None);
        complaints.note(Level::WARN, "WEBDAV [PUT]: /a, ERROR: input/output error");
        assert_eq!(complaints.since(begun).await.as_deref(), Some("input/output error"));
        complaints.note(Level::WARN, "error: refused");
        complaints.note(Level::WARN, "write inode:6 indx:0 input/output error");
        complaints.note(Level::WARN, "WEBDAV [PUT]: /b, ERROR: input/output error");
        assert_eq!(complaints.since(begun).await.as_deref(), Some("error: refused"));
        complaints.note(Level::ERROR, "fatal");
        complaints.note(Level::WARN, "after it");
        assert_eq!(complaints.worst().as_deref(), Some("fatal"));
    }

    #[tokio::test]
    async fn a_line_that_is_a_moment_late_is_waited_for() {
        let complaints = std::sync::Arc::new(Complaints::default());
        let waiting = tokio::spawn({
            let complaints = complaints.clone();
            async move { complaints.since(Instant::now()).await }
        });
        tokio::task::yield_now().await;
        complaints.note(Level::WARN, "here");
        assert_eq!(waiting.await.expect("no panic").as_deref(), Some("here"));
    }
}
