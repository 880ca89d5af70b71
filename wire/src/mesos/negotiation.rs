//! Which encodings a request and its answer have, from the values of its headers
//! (`src/master/http.cpp`, `src/slave/http.cpp` and libprocess's `Request::acceptsMediaType`).
//!
//! `Content-Type` is compared as text: with a parameter it is another type. `Accept` is not about
//! preference: what is accepted at all counts, and JSON comes first.

use super::Encoding;

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of protobuf.
pub const PROTOBUF: &str = "application/x-protobuf";
/// The media type of a stream of records whose encoding other headers name.
pub const RECORDIO: &str = "application/recordio";

impl Encoding {
    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => PROTOBUF,
        }
    }

    fn named(media_type: &str) -> Option<Self> {
        [Self::Json, Self::Protobuf]
            .into_iter()
            .find(|encoding| encoding.media_type() == media_type)
    }
}

/// The headers that say how a request is encoded and what its answer may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'h> {
    /// `Content-Type`
    pub content_type: Option<&'h str>,
    /// `Message-Content-Type`
    pub message_content_type: Option<&'h str>,
    /// `Accept`; several lines joined with commas.
    pub accept: Option<&'h str>,
    /// `Message-Accept`; several lines joined with commas.
    pub message_accept: Option<&'h str>,
}

/// How a body is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// One message.
    Message(Encoding),
    /// Records of one message each, under the media type of RecordIO.
    Records(Encoding),
}

impl Body {
    /// The encoding of its messages.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Message(encoding) | Self::Records(encoding) => encoding,
        }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Message(encoding) => encoding.media_type(),
            Self::Records(_) => RECORDIO,
        }
    }
}

/// Why a request is refused. The text is the body of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Content-Type`.
    #[error("Expecting 'Content-Type' to be present")]
    NoContentType,
    /// Records, and no word on what they are.
    #[error("Expecting 'Message-Content-Type' to be set for streaming requests")]
    NoMessageContentType,
    /// Another `Content-Type`.
    #[error("Expecting 'Content-Type' of application/json or application/x-protobuf")]
    ContentType,
    /// Another `Content-Type`, where records may come too.
    #[error(
        "Expecting 'Content-Type' of application/json or application/x-protobuf or application/recordio"
    )]
    ContentTypeOrRecords,
    /// Another `Message-Content-Type`.
    #[error("Expecting 'Message-Content-Type' of application/json or application/x-protobuf")]
    MessageContentType,
    /// `Message-Content-Type` for a body that is one message.
    #[error("Expecting 'Message-Content-Type' to be not set for non-streaming requests")]
    StrayMessageContentType,
    /// Nothing in `Accept` can be given.
    #[error("Expecting 'Accept' to allow application/json or application/x-protobuf")]
    Accept,
    /// Nothing in `Accept` can be given, not even records.
    #[error(
        "Expecting 'Accept' to allow application/json or application/x-protobuf or application/recordio"
    )]
    AcceptOrRecords,
    /// Nothing in `Message-Accept` can be given.
    #[error("Expecting 'Message-Accept' to allow application/json or application/x-protobuf")]
    MessageAccept,
    /// `Message-Accept` for an answer that is no stream of records.
    #[error("Expecting 'Message-Accept' to be not set for non-streaming responses")]
    StrayMessageAccept,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoContentType | Self::NoMessageContentType => 400,
            Self::Accept
            | Self::AcceptOrRecords
            | Self::MessageAccept
            | Self::StrayMessageAccept => 406,
            Self::ContentType
            | Self::ContentTypeOrRecords
            | Self::MessageContentType
            | Self::StrayMessageContentType => 415,
        }
    }
}

/// Request and answer at an endpoint where bodies are single messages (an answer that streams
/// events has the media type of their encoding). Errors: see [`Refusal`].
pub fn negotiate(headers: &Headers<'_>) -> Result<(Encoding, Encoding), Refusal> {
    let named = headers.content_type.ok_or(Refusal::NoContentType)?;
    let request = Encoding::named(named).ok_or(Refusal::ContentType)?;
    let answer = accepted(headers.accept).ok_or(Refusal::Accept)?;
    Ok((request, answer))
}

/// Request and answer at the agent's operator API, where both may be streams of records. Whether
/// the call in the request may be one is for the caller to say. Errors: see [`Refusal`].
pub fn negotiate_records(headers: &Headers<'_>) -> Result<(Body, Body), Refusal> {
    let named = headers.content_type.ok_or(Refusal::NoContentType)?;
    let request = match (Encoding::named(named), headers.message_content_type) {
        (Some(encoding), None) => Body::Message(encoding),
        (Some(_), Some(_)) => return Err(Refusal::StrayMessageContentType),
        (None, _) if named != RECORDIO => return Err(Refusal::ContentTypeOrRecords),
        (None, None) => return Err(Refusal::NoMessageContentType),
        (None, Some(inner)) => {
            Body::Records(Encoding::named(inner).ok_or(Refusal::MessageContentType)?)
        }
    };
    let answer = match accepted(headers.accept) {
        Some(_) if headers.message_accept.is_some() => return Err(Refusal::StrayMessageAccept),
        Some(encoding) => Body::Message(encoding),
        None if accepts(headers.accept, RECORDIO) => {
            Body::Records(accepted(headers.message_accept).ok_or(Refusal::MessageAccept)?)
        }
        None => return Err(Refusal::AcceptOrRecords),
    };
    Ok((request, answer))
}

/// The encoding that a value of `Accept` allows; JSON if it allows both.
#[must_use]
pub fn accepted(accept: Option<&str>) -> Option<Encoding> {
    [Encoding::Json, Encoding::Protobuf]
        .into_iter()
        .find(|encoding| accepts(accept, encoding.media_type()))
}

/// Whether a value of `Accept` allows a media type. Of the ranges that match, the most exact one
/// decides, and it allows the type unless its q is 0. No header allows everything.
fn accepts(accept: Option<&str>, media_type: &str) -> bool {
    let Some(accept) = accept else { return true };
    let group = media_type.split('/').next().unwrap_or_default();
    let exactness = |range: &str| match range.split_once('/') {
        _ if range.eq_ignore_ascii_case(media_type) => 3,
        Some((left, "*")) if left.eq_ignore_ascii_case(group) => 2,
        Some(("*", "*")) => 1,
        _ => 0,
    };
    let mut best = (0, false);
    for entry in accept.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let exact = exactness(parts.next().unwrap_or_default());
        if exact > best.0 {
            best = (exact, !parts.any(is_zero));
        }
    }
    best.0 > 0 && best.1
}

/// Whether a parameter is a q of zero, or one that is no number.
fn is_zero(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let quality = || value.trim().parse::<f32>();
    name.trim().eq_ignore_ascii_case("q") && !quality().is_ok_and(|q| q > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_about_what_is_allowed() {
        let (json, protobuf) = (Some(Encoding::Json), Some(Encoding::Protobuf));
        for (accept, want) in [
            (None, json),
            (Some("*/*"), json),
            (Some("application/*"), json),
            (Some("application/json"), json),
            (Some("application/x-protobuf"), protobuf),
            (Some("application/x-protobuf, application/json"), json),
            (
                Some("application/x-protobuf;q=0.9,application/json;q=0.1"),
                json,
            ),
            (
                Some("application/json;q=0, application/x-protobuf"),
                protobuf,
            ),
            (Some("application/json;q=0, */*"), protobuf),
            (
                Some("application/json; q=0.0 ,application/*;q=0.5"),
                protobuf,
            ),
            (Some("text/html, application/xhtml+xml, */*;q=0.8"), json),
            (Some("*/*;q=0"), None),
            (Some("text/html"), None),
            (Some("application/json;q=x"), None),
            (Some(""), None),
            (Some("application/json;charset=utf-8"), json),
        ] {
            assert_eq!(accepted(accept), want, "{accept:?}");
        }
    }

    #[test]
    fn content_types_are_exact() {
        let ask = |content_type| {
            negotiate(&Headers {
                content_type,
                ..Headers::default()
            })
        };
        assert_eq!(ask(Some(JSON)), Ok((Encoding::Json, Encoding::Json)));
        assert_eq!(
            ask(Some(PROTOBUF)),
            Ok((Encoding::Protobuf, Encoding::Json))
        );
        for other in [
            "application/json;charset=utf-8",
            "application/JSON",
            RECORDIO,
            "",
        ] {
            let refusal = ask(Some(other)).unwrap_err();
            assert_eq!((refusal, refusal.status()), (Refusal::ContentType, 415));
        }
        assert_eq!(ask(None).map_err(Refusal::status), Err(400));
    }

    #[test]
    fn records_name_their_messages() {
        let (message, records) = (Body::Message, Body::Records);
        let (json, protobuf) = (Encoding::Json, Encoding::Protobuf);
        let (j, p, r) = (Some(JSON), Some(PROTOBUF), Some(RECORDIO));
        for (headers, want) in [
            ([j, None, r, j], Ok((message(json), records(json)))),
            ([j, None, r, None], Ok((message(json), records(json)))),
            ([p, None, r, p], Ok((message(protobuf), records(protobuf)))),
            ([r, j, None, None], Ok((records(json), message(json)))),
            ([r, p, p, None], Ok((records(protobuf), message(protobuf)))),
            ([r, None, None, None], Err(400)),
            ([r, r, None, None], Err(415)),
            ([j, j, None, None], Err(415)),
            ([Some("text/plain"), None, None, None], Err(415)),
            ([j, None, r, Some("text/plain")], Err(406)),
            ([j, None, j, j], Err(406)),
            ([j, None, Some("text/plain"), None], Err(406)),
        ] {
            let [content_type, message_content_type, accept, message_accept] = headers;
            let found = negotiate_records(&Headers {
                content_type,
                message_content_type,
                accept,
                message_accept,
            });
            assert_eq!(found.map_err(Refusal::status), want, "{headers:?}");
        }
    }
}
