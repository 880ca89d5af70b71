//! Pulls one image into a directory and says how long it took: for measuring by hand.
//!
//! `cargo run --release -p gantry-image --example pull -- host:5000/name:tag DIR`

use std::process::ExitCode;
use std::time::Instant;

use gantry_image::{PullOptions, Reference, Store};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, dir] = args.as_slice() else {
        eprintln!("usage: pull REFERENCE DIR");
        return ExitCode::FAILURE;
    };
    let (reference, store) = match (Reference::parse(name), Store::open(dir.as_ref())) {
        (Ok(reference), Ok(store)) => (reference, store),
        (Err(error), _) => return fail(&error),
        (_, Err(error)) => return fail(&error),
    };
    let began = Instant::now();
    match store.pull(&reference, PullOptions::default()).await {
        Ok(image) => {
            println!(
                "{} layers in {:.3} s",
                image.layers.len(),
                began.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", error.message());
            ExitCode::FAILURE
        }
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
