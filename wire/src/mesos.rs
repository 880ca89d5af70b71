//! The Mesos v1 API as it crosses the wire: messages in protobuf and in Mesos's own JSON, records,
//! negotiation of encodings, routes.
//!
//! All messages come from one table, `mesos-v1.schema`, when wire is compiled. Nothing here decides
//! what a call means, and nothing reads a socket. Invariant: what [`decode`] gives has all its
//! required fields, whatever the encoding; no input makes it panic, recurse without bound, or write
//! an error without bound.

pub mod amounts;
pub mod attributes;
mod base64;
mod codec;
pub mod commands;
pub mod descriptor;
pub mod entries;
mod fields;
mod ids;
mod json;
mod missing;
pub mod negotiation;
pub mod recordio;
pub mod resources_text;
pub mod routes;
mod states;
pub mod value_text;

pub use codec::{DecodeError, Encoding, Expected, Syntax, decode, encode, encode_into};
pub use missing::{DEPTH_MAX, MISSING_MAX};

mod table {
    //! What the messages are made of; generated.
    include!(concat!(env!("OUT_DIR"), "/mesos_table.rs"));
}

#[expect(
    missing_docs,
    reason = "the names are Mesos's; its documentation says what they mean"
)]
pub mod v1 {
    //! The messages and enums; generated. Package `mesos.v1` is this module, `mesos.v1.scheduler`
    //! is `scheduler`, a type inside a message is in the module of the message's name.
    //!
    //! Optional fields are `Option` (boxed where the message is large: `Some(x.into())` fits both),
    //! required ones are plain, maps are lists of entries (see [`super::entries`]), enums are `i32`
    //! with an accessor of the field's name.
    include!(concat!(env!("OUT_DIR"), "/mesos_messages.rs"));
}
