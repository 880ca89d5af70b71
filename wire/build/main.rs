//! Makes the Mesos messages of wire, from `mesos-v1.schema`: the Rust types, and the descriptors
//! that JSON goes by. It starts nothing and fetches nothing.

mod messages;
mod names;
mod schema;
mod table;

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const SCHEMA: &str = "mesos-v1.schema";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCHEMA}");
    println!("cargo::rerun-if-changed=build");
    let schema = schema::Schema::parse(&fs::read_to_string(SCHEMA)?)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("mesos_messages.rs"), messages::write(&schema))?;
    fs::write(out.join("mesos_table.rs"), table::write(&schema)?)?;
    Ok(())
}
