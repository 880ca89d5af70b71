//! The rules of the house, each a test over the sources: one file per rule.
//!
//! Every rule is a function from a [`tree::Tree`] to a list of problems. It is run on the real
//! tree, which must have none, and on small bad samples, which must have some: a rule that cannot
//! fail is no rule.

mod code;
mod cores;
mod excuses;
mod hosts;
mod imports;
mod leftovers;
mod lints;
mod maps;
mod names;
mod rooms;
mod sizes;
mod tree;
mod words;
