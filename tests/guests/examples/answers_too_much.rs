//! Answers with more than the host takes: a sentence of 100 KiB, a thousand options, a thousand levels of folders.
//!
//! Sentences are cut, lists are refused.

pith_guests::guest!({ pith_guests::Says::TooMuch });
