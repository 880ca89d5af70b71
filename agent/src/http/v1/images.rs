//! PRUNE_IMAGES: removes what no container needs but what the caller names. Which images are in use
//! is for the store to say.

use std::collections::BTreeSet;

use gantry_image::{Prune, Reference, StoreError, Summary, Trouble};
use gantry_wire::mesos::v1::Image;
use gantry_wire::mesos::v1::agent::call::PruneImages;

use super::super::Server;
use super::super::problem::Problem;

pub(super) async fn prune(server: &Server, call: &PruneImages) -> Result<(), Problem> {
    let store = &server.store;
    let kept = call.excluded_images.iter().map(name);
    let kept: BTreeSet<String> = kept.collect::<Result<_, _>>()?;
    if kept.is_empty() {
        store.prune(Prune::Unused).await.map_err(failed)?;
        return Ok(());
    }
    let unused = |image: &Summary| {
        let named = image.names.iter().any(|name| kept.contains(name));
        !named && !image.in_use
    };
    let images = store.list().await.map_err(failed)?;
    for name in images
        .into_iter()
        .filter(unused)
        .flat_map(|image| image.names)
    {
        let Ok(reference) = Reference::parse(&name) else {
            continue;
        };
        match store.remove(&reference, false).await {
            // Something began to use it, or somebody else removed it.
            Err(error) if matches!(error.trouble(), Trouble::InUse | Trouble::NotHere) => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The full name of an image of Docker; there are no others.
fn name(image: &Image) -> Result<String, Problem> {
    let docker = image.docker.as_ref();
    let docker =
        docker.ok_or_else(|| Problem::BadRequest("Expecting a Docker image".to_owned()))?;
    let reference = Reference::parse(&docker.name);
    let reference = reference.map_err(|error| Problem::BadRequest(error.to_string()))?;
    Ok(reference.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn failed(error: StoreError) -> Problem {
    Problem::Internal(crate::chain(&error))
}
