//! Answering a challenge: a user and password, or a token bought at the token service it names.
//!
//! It decides where a login may go: to the server itself, and to the token service that this very
//! server names, over TLS or where plain HTTP is allowed, never to a link-local address nor from
//! another machine to this one. An identity token travels in a POST that follows no redirect; a
//! password in a header that no redirect takes to another origin.
//!
//! Invariant: the login is the one for this server's own name, so a mirror never sees the
//! registry's, nor the registry the mirror's.

use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Response, Url};

use super::RegistryError;
use super::endpoint::{Context, Endpoint, Shown, body, unreachable};
use crate::auth::challenge::{self, Challenge};
use crate::auth::credentials::Login;
use crate::auth::secret::Secret;
use crate::auth::token::{self, Purpose, Token};
use gantry_intake::authority;

/// How this client is called at token services.
const CLIENT_ID: &str = "gantry";
/// Longest scope that is passed on, in bytes.
const MAX_SCOPE_BYTES: usize = 2048;

/// What a bearer challenge asks for.
struct Asked<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scope: Option<&'a str>,
}

impl Endpoint {
    /// Something other than `used` to show: what another request got meanwhile, else a new login.
    /// The second is whether it was made just now, so that asking again is pointless.
    pub(super) async fn renew(
        &self,
        context: &Context<'_>,
        used: Option<Shown>,
        refusal: &HeaderMap,
    ) -> Result<(Shown, bool), RegistryError> {
        let mut held = self.held.lock().await;
        let used = used.map(|used| used.header);
        if let Some(newer) = held
            .as_ref()
            .filter(|held| used.as_ref() != Some(&held.header))
        {
            return Ok((newer.clone(), false));
        }
        let challenges = challenge::challenges(refusal);
        let login = context
            .keyring
            .find(&self.login_host, &self.repository)
            .await
            .map_err(|source| RegistryError::Credentials {
                host: self.login_host.clone(),
                source,
            })?;
        let (header, is_new) = match challenges.iter().find_map(bearer) {
            Some(asked) => self.token(context, &asked, login.as_ref(), used).await?,
            None => (self.basic(&challenges, login.as_ref())?, true),
        };
        let user = login.as_ref().map(user);
        let shown = Shown { header, user };
        *held = Some(shown.clone());
        Ok((shown, is_new))
    }

    fn basic(
        &self,
        challenges: &[Challenge],
        login: Option<&Login>,
    ) -> Result<HeaderValue, RegistryError> {
        let wrong = |detail| RegistryError::LoginKind {
            host: self.login_host.clone(),
            detail,
        };
        match login {
            None => Err(self.refused(None)),
            Some(_) if !challenges.contains(&Challenge::Basic) => {
                Err(wrong("it offers neither basic nor token authentication"))
            }
            Some(Login::Password { user, password }) => password_header(user, password)
                .ok_or_else(|| wrong("the user name cannot be sent in a header")),
            Some(Login::Identity(_) | Login::Access(_)) => Err(wrong(
                "it takes a user and a password, and the credentials have a token",
            )),
        }
    }

    async fn token(
        &self,
        context: &Context<'_>,
        asked: &Asked<'_>,
        login: Option<&Login>,
        refused: Option<HeaderValue>,
    ) -> Result<(HeaderValue, bool), RegistryError> {
        if let Some(Login::Access(token)) = login {
            let header = token::bearer(token).filter(|header| refused.as_ref() != Some(header));
            let header = header.ok_or_else(|| self.refused(login.map(user)))?;
            return Ok((header, true));
        }
        let mut url = Url::parse(asked.realm).map_err(|error| RegistryError::Token {
            host: self.host(),
            detail: format!("its address is not a URL: {error}"),
        })?;
        url.set_fragment(None);
        let failed = |detail: String| RegistryError::Token {
            host: authority(&url),
            detail,
        };
        let checked = context.reach.check(&self.base, &url);
        checked.map_err(|why| failed(format!("its address {why}")))?;
        let scope = asked.scope.map_or_else(
            || format!("repository:{}:pull", self.repository),
            str::to_owned,
        );
        if scope.len() > MAX_SCOPE_BYTES {
            return Err(failed("the scope that is asked for is too long".into()));
        }
        let purpose = Purpose::new(url.as_str(), asked.service, &scope, login);
        let now = Instant::now();
        let tokens = &context.registries.tokens;
        if let Some(kept) = tokens.get(&purpose, refused.as_ref(), now) {
            return Ok((kept, false));
        }
        let response = self
            .ask_for_token(context, &url, asked.service, &scope, login)
            .await?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Err(self.refused(login.map(user))),
            429 => {
                let host = authority(&url);
                return Err(RegistryError::TooMany { host });
            }
            status => return Err(failed(format!("it answered {status}"))),
        }
        let answer = body(context, response, "a token", token::MAX_ANSWER_BYTES).await?;
        let answer = zeroize::Zeroizing::new(answer);
        let token = Token::read(&answer).ok_or_else(|| failed("its answer has none".into()))?;
        tokens.keep(purpose, &token, now);
        Ok((token.header, true))
    }

    async fn ask_for_token(
        &self,
        context: &Context<'_>,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        login: Option<&Login>,
    ) -> Result<Response, RegistryError> {
        let transport = &context.registries.transport;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut query: Vec<(&str, &str)> = Vec::new();
        query.extend(service.map(|service| ("service", service)));
        query.push(("scope", scope));
        let sent = match login {
            Some(Login::Identity(token)) => {
                query.push(("client_id", CLIENT_ID));
                query.push(("grant_type", "refresh_token"));
                query.push(("refresh_token", token.expose()));
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form);
                let mut encoder = realm.clone();
                encoder.set_query(None);
                encoder.query_pairs_mut().extend_pairs(query);
                let form = encoder.query().unwrap_or_default().to_owned();
                transport.post(realm, &headers, form, &context.reach).await
            }
            Some(Login::Password { user, password }) => {
                let header = password_header(user, password);
                let header = header.ok_or_else(|| self.refused(Some(user.clone())))?;
                headers.insert(AUTHORIZATION, header);
                query.push(("account", user));
                let mut url = realm.clone();
                url.query_pairs_mut().extend_pairs(query);
                transport.get(&url, &headers, &context.reach).await
            }
            Some(Login::Access(_)) | None => {
                let mut url = realm.clone();
                url.query_pairs_mut().extend_pairs(query);
                transport.get(&url, &headers, &context.reach).await
            }
        };
        sent.map_err(unreachable)
    }
}

fn bearer(challenge: &Challenge) -> Option<Asked<'_>> {
    match challenge {
        Challenge::Bearer {
            realm,
            service,
            scope,
        } => Some(Asked {
            realm,
            service: service.as_deref(),
            scope: scope.as_deref(),
        }),
        Challenge::Basic | Challenge::Unknown => None,
    }
}

/// Who a login is for, in words.
fn user(login: &Login) -> String {
    match login {
        Login::Password { user, .. } => format!("the user {user:?}"),
        Login::Identity(_) | Login::Access(_) => "the token that was given".into(),
    }
}

fn password_header(user: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = Secret::new(format!("{user}:{}", password.expose()));
    let encoded = Secret::new(BASE64_STANDARD.encode(pair.expose()));
    let mut header = HeaderValue::from_str(&format!("Basic {}", encoded.expose())).ok()?;
    header.set_sensitive(true);
    Some(header)
}
