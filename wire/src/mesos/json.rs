//! Mesos's own mapping between JSON and protobuf (stout's `protobuf.hpp`; not proto3's): names as in
//! the schema, enums by name, bytes in base64, 64-bit numbers as numbers, doubles with a fraction,
//! `Infinity` as a bare token, maps as objects, defaults printed. There is no code for any single
//! message: the tables say how each is read and written.

mod parse;
mod print;
mod reader;

use super::{DecodeError, Expected, Syntax};

pub(super) use parse::parse;
pub(super) use print::print;
