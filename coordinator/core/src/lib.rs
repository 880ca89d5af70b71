//! The decisions of a coordinator, pure.
