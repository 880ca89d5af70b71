//! The Mesos messages against the schema, against JSON as real clients write it, against golden
//! files and against protobuf's own compiler.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod facts;
mod golden;
mod hostile;
mod mapping;
mod properties;
mod protoc;
mod sample;
#[path = "../../build/schema.rs"]
mod schema;

use gantry_wire::mesos::descriptor::{Described, Message};
use gantry_wire::mesos::{DecodeError, Encoding, decode, encode};

/// The bytes of a message, from one encoding into another.
type Convert = fn(Encoding, &[u8], Encoding) -> Result<Vec<u8>, DecodeError>;

/// What can be done with a type of message that is known by its table only.
pub(crate) struct Codec {
    pub(crate) message: &'static Message,
    /// Decodes and encodes.
    pub(crate) convert: Convert,
}

impl Codec {
    fn of<T: prost::Message + Described + Default>() -> Self {
        Self {
            message: T::descriptor(),
            convert: |from, bytes, to| Ok(encode(to, &decode::<T>(from, bytes)?)),
        }
    }
}

/// All messages of the schema.
pub(crate) fn codecs() -> Vec<Codec> {
    let mut codecs = Vec::new();
    macro_rules! add {
        ($message:ty) => {
            codecs.push(Codec::of::<$message>());
        };
    }
    gantry_wire::every_mesos_message!(add);
    codecs
}

/// The message of a full name.
pub(crate) fn codec(name: &str) -> Codec {
    let found = codecs()
        .into_iter()
        .find(|codec| codec.message.name == name);
    found.unwrap_or_else(|| panic!("there is no message {name}"))
}
