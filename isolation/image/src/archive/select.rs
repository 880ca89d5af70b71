//! Which images of an archive are meant, and what they are called.
//!
//! It decides by the names in the archive as they stand there, by names in full, and by digest. It
//! reads nothing. Invariant: an image gets the names that were asked for and no others, or, if
//! nothing was asked for, those that the archive gives it; one without any is refused.

use super::ArchiveError;
use super::import::Found;
use crate::{Digest, Reference};

/// Most images that a refusal lists.
const LISTED: usize = 20;
/// Most of a name that an error repeats, in characters.
const NAME_CHARS: usize = 200;

/// One image that is asked for.
pub(super) struct Wish {
    text: String,
    digest: Option<Digest>,
    full: Option<String>,
}

impl Wish {
    /// `name`, `@digest`, a digest, or `name@digest`, where the digest counts.
    pub(super) fn parse(text: &str) -> Self {
        let digest = text
            .rsplit('@')
            .next()
            .and_then(|digest| digest.parse().ok());
        Self {
            text: text.chars().take(NAME_CHARS).collect(),
            digest,
            full: Reference::parse(text).ok().map(|full| full.to_string()),
        }
    }

    /// Whether a name in the archive is meant.
    fn names(&self, name: &str) -> bool {
        let in_full = || Reference::parse(name).ok().map(|full| full.to_string());
        self.digest.is_none() && (name == self.text || (is_full(name) && in_full() == self.full))
    }

    fn is(&self, digests: &[Digest]) -> bool {
        self.digest.is_some_and(|digest| digests.contains(&digest))
    }
}

/// Something in an archive that is not taken: for another machine, or no image.
pub(super) struct Passed {
    pub(super) names: Vec<String>,
    pub(super) digest: Digest,
    pub(super) why: ArchiveError,
}

/// What an archive has.
pub(super) struct Contents {
    pub(super) found: Vec<Found>,
    pub(super) passed: Vec<Passed>,
}

impl Contents {
    /// The images that are meant, each with what it shall be called.
    pub(super) fn choose(
        self,
        wishes: &[Wish],
        given: Option<&Reference>,
    ) -> Result<Vec<(Found, Vec<Reference>)>, ArchiveError> {
        if wishes.is_empty() && self.found.is_empty() {
            let first = self.passed.into_iter().next();
            return Err(first.map_or(ArchiveError::Bounds("no image"), |passed| passed.why));
        }
        for wish in wishes {
            if !self.found.iter().any(|image| wished(image, wish).is_some()) {
                return Err(self.refusal(wish));
            }
        }
        let chosen = self.found.into_iter().filter_map(|image| {
            if wishes.is_empty() {
                let names = image.names.clone();
                return Some((image, names));
            }
            let named: Vec<Vec<String>> = wishes
                .iter()
                .filter_map(|wish| wished(&image, wish))
                .collect();
            (!named.is_empty()).then(|| (image, named.concat()))
        });
        call(chosen.collect(), given)
    }

    /// Why nothing is taken for a wish.
    fn refusal(&self, wish: &Wish) -> ArchiveError {
        let meant = self.passed.iter().find(|passed| {
            wish.is(&[passed.digest]) || passed.names.iter().any(|name| wish.names(name))
        });
        let wanted = wish.text.clone();
        match meant {
            Some(passed) => ArchiveError::NotForHere {
                name: wanted,
                why: passed.why.message(),
            },
            None => ArchiveError::NotThere {
                wanted,
                has: self.list(),
            },
        }
    }

    fn list(&self) -> String {
        let all = self.found.iter().map(title);
        let passed = self.passed.iter().map(|passed| {
            let name = passed.names.first().cloned();
            let name = name.unwrap_or_else(|| passed.digest.to_string());
            let name: String = name.chars().take(NAME_CHARS).collect();
            format!("{name} (not for this node)")
        });
        let mut all: Vec<String> = all.chain(passed).collect();
        if all.is_empty() {
            return "none".to_owned();
        }
        if all.len() > LISTED {
            all.truncate(LISTED);
            all.push("…".to_owned());
        }
        all.join(", ")
    }
}

/// The names under which an image is meant; none if it is not. By digest all of its names count.
fn wished(image: &Found, wish: &Wish) -> Option<Vec<String>> {
    if wish.is(&image.digests()) {
        return Some(image.names.clone());
    }
    let names = image.names.iter().filter(|name| wish.names(name));
    let names: Vec<String> = names.cloned().collect();
    (!names.is_empty()).then_some(names)
}

fn call(
    chosen: Vec<(Found, Vec<String>)>,
    given: Option<&Reference>,
) -> Result<Vec<(Found, Vec<Reference>)>, ArchiveError> {
    if let Some(given) = given {
        if chosen.len() > 1 {
            let all: Vec<String> = chosen.iter().map(|(image, _)| title(image)).collect();
            return Err(ArchiveError::Several(all.join(", ")));
        }
        let named = chosen.into_iter().map(|(it, _)| (it, vec![given.clone()]));
        return Ok(named.collect());
    }
    let named = chosen.into_iter().map(|(image, names)| {
        let mut full: Vec<Reference> = Vec::new();
        for name in names.iter().filter(|name| is_full(name)) {
            let parsed = Reference::parse(name).map_err(|source| ArchiveError::Name {
                name: name.chars().take(NAME_CHARS).collect(),
                source,
            })?;
            if !full.contains(&parsed) {
                full.push(parsed);
            }
        }
        if full.is_empty() {
            let named = names.first().cloned();
            return Err(ArchiveError::Unnamed(
                named.unwrap_or_else(|| title(&image)),
            ));
        }
        Ok((image, full))
    });
    named.collect()
}

/// A tag alone is the name of an image in the layout, not of an image.
fn is_full(name: &str) -> bool {
    name.contains(['/', ':'])
}

/// How a refusal names an image.
fn title(image: &Found) -> String {
    if image.names.is_empty() {
        return format!("@{} (without a name)", image.digest);
    }
    let names: Vec<String> = image.names.iter().take(LISTED).cloned().collect();
    let joined = names.join(", ");
    joined.chars().take(NAME_CHARS).collect()
}
