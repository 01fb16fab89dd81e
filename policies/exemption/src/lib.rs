//! First-party policy (in the making).
