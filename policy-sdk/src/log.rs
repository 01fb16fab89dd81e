//! Lines for the log of the host, with the policy and the call they belong to put on by the host.
//!
//! In a native test the lines go to the thread that wrote them: see [`take`].

pub use crate::bindings::imports::pith::policy::log::Level;

/// A step on the way to the answer.
pub fn debug(message: impl AsRef<str>) {
    write(Level::Debug, message.as_ref());
}

/// Something worth knowing in normal operation.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message.as_ref());
}

/// Something was not as it should be, and the policy coped.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message.as_ref());
}

/// A person must look.
pub fn error(message: impl AsRef<str>) {
    write(Level::Error, message.as_ref());
}

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::bindings::imports::pith::policy::log::log(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, message: &str) {
    LINES.with_borrow_mut(|lines| lines.push((level, message.to_owned())));
}

#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static LINES: std::cell::RefCell<Vec<(Level, String)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The lines that this thread has written since the last call. Native tests only.
#[cfg(not(target_arch = "wasm32"))]
pub fn take() -> Vec<(Level, String)> {
    LINES.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_for_the_test_in_order() {
        warn("first");
        info(format!("{}", 2));
        assert_eq!(take(), [(Level::Warn, "first".to_owned()), (Level::Info, "2".to_owned())]);
        assert_eq!(take(), []);
    }
}
