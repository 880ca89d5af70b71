//! `/v2/apps` and `/v2/apps/{id…}`.
//!
//! It decides which handler the end of a path means and how a success looks; what a definition
//! must satisfy, and what changes, the core decides. Reads use one snapshot each. Invariants:
//! booleans default as Marathon's code does (DELETE has `force=true`, PUT `partialUpdate=true`).

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gantry_coordinator_core::command::Kind;
use gantry_coordinator_core::outcome::Rejection;
use gantry_coordinator_core::service::label_selector::LabelSelector;
use gantry_coordinator_core::service::request::{self, PutMode};
use gantry_coordinator_core::service::view::{self, Embed};
use gantry_coordinator_core::state::{AppRecord, State as Replicated};
use gantry_wire::ids::AppId;
use gantry_wire::marathon::App;
use gantry_wire::time::Millis;
use serde_json::{Value, json};

use super::app_path::AppPath;
use super::change::{deploying, with_deployment};
use super::query::Parameters;
use super::refusal::Refusal;
use super::{Api, app_tasks, body};

/// What `embed=` asks for; the prefixes that clients use are all accepted, unknown values ignored
/// (Marathon, `api/v2/InfoEmbedResolver.scala`).
fn embed(query: &Parameters) -> Embed {
    let mut embed = Embed::default();
    for value in query.all("embed") {
        let name = ["group.apps.", "apps.", "app."]
            .into_iter()
            .find_map(|prefix| value.strip_prefix(prefix))
            .unwrap_or(value);
        match name {
            "tasks" => embed.tasks = true,
            "lastTaskFailure" => embed.last_task_failure = true,
            "taskStats" => embed.task_stats = true,
            "failures" => (embed.tasks, embed.last_task_failure) = (true, true),
            _ => {}
        }
    }
    embed
}

/// GET /v2/apps.
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let query = Parameters::of(request.uri());
    let selector = query.get("label").map(LabelSelector::parse).transpose();
    let selector = selector.map_err(|error| Refusal::BadArgument(error.to_string()))?;
    let id = query.get("id").map(str::to_lowercase);
    let cmd = query.get("cmd").map(str::to_lowercase);
    let wanted = |app: &App| {
        let contains = |text: &str, part: &str| text.to_lowercase().contains(part);
        id.as_ref().is_none_or(|id| contains(app.id.as_str(), id))
            && cmd
                .as_ref()
                .is_none_or(|cmd| contains(app.cmd.as_deref().unwrap_or(""), cmd))
            && selector
                .as_ref()
                .is_none_or(|selector| selector.matches(&app.labels))
    };
    let (state, now, embed) = (api.handle.state(), api.handle.now(), embed(&query));
    let apps = state.apps().iter().filter(|record| wanted(&record.spec));
    let apps: Vec<Value> = apps
        .map(|app| view::app_info(&state, app, embed, now))
        .collect();
    Ok(Json(json!({ "apps": apps })).into_response())
}

/// POST /v2/apps.
pub(super) async fn create(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let force = Parameters::of(request.uri()).flag("force", false);
    let body = body::read(request.into_body()).await?;
    let make = api.change(|state, ids| {
        let kind = request::post_app(state, &body, force, ids)?;
        let id = created_id(&kind);
        Ok((kind, id))
    });
    let (outcome, id) = make.await?;
    let state = api.handle.state();
    // Another request may already have removed the app again; then there is nothing to show of it.
    let record = id.as_ref().and_then(|id| state.app(id));
    let mut response = match record {
        None => deploying(StatusCode::CREATED, &outcome)?,
        Some(record) => {
            let shown = view::app_created(&state, record, &outcome);
            with_deployment(&outcome, (StatusCode::CREATED, Json(shown)).into_response())
        }
    };
    if let Some(at) = id.and_then(|id| HeaderValue::from_str(&format!("/v2/apps{id}")).ok()) {
        response.headers_mut().insert(header::LOCATION, at);
    }
    Ok(response)
}

fn created_id(kind: &Kind) -> Option<AppId> {
    let Kind::PutApps(put) = kind else {
        return None;
    };
    let app: App = serde_json::from_slice(&put.apps.first()?.definition).ok()?;
    Some(app.id)
}

/// PUT /v2/apps.
pub(super) async fn put_all(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let mode = put_mode(&Parameters::of(request.uri()));
    change_all(&api, request, mode).await
}

/// PATCH /v2/apps.
pub(super) async fn patch_all(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Refusal> {
    change_all(&api, request, PutMode::Patch).await
}

async fn change_all(api: &Api, request: Request, mode: PutMode) -> Result<Response, Refusal> {
    let force = Parameters::of(request.uri()).flag("force", false);
    let body = body::read(request.into_body()).await?;
    let make =
        api.change(|state, ids| Ok((request::put_apps(state, &body, mode, force, ids)?, ())));
    let (outcome, ()) = make.await?;
    deploying(StatusCode::OK, &outcome)
}

fn put_mode(query: &Parameters) -> PutMode {
    if query.flag("partialUpdate", true) {
        PutMode::Merge
    } else {
        PutMode::Replace
    }
}

/// PUT /v2/apps/{id}.
pub(super) async fn put(
    State(api): State<Api>,
    Path(rest): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let mode = put_mode(&Parameters::of(request.uri()));
    change_one(&api, &rest, request, mode).await
}

/// PATCH /v2/apps/{id}.
pub(super) async fn patch(
    State(api): State<Api>,
    Path(rest): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    change_one(&api, &rest, request, PutMode::Patch).await
}

async fn change_one(
    api: &Api,
    rest: &str,
    request: Request,
    mode: PutMode,
) -> Result<Response, Refusal> {
    let AppPath::App(id) = AppPath::parse(rest)? else {
        return Err(Refusal::WrongMethod);
    };
    let force = Parameters::of(request.uri()).flag("force", false);
    let body = body::read(request.into_body()).await?;
    let make = api.change(|state, ids| {
        let kind = request::put_app(state, &id, &body, mode, force, ids)?;
        Ok((kind, state.app(&id).is_none()))
    });
    let (outcome, created) = make.await?;
    deploying(
        if created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        },
        &outcome,
    )
}

/// DELETE /v2/apps/{id}, …/tasks, …/tasks/{task}.
pub(super) async fn remove(
    State(api): State<Api>,
    Path(rest): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = Parameters::of(request.uri());
    let id = match AppPath::parse(&rest)? {
        // An app that got such a name by other means must stay deletable, so this one is an app.
        AppPath::App(id) => id,
        AppPath::Restart(id) => app_named_restart(&id)?,
        AppPath::Tasks(id) => return app_tasks::kill_all(&api, &id, &query).await,
        AppPath::Task(id, task) => return app_tasks::kill_one(&api, &id, &task, &query).await,
        _ => return Err(Refusal::WrongMethod),
    };
    let force = query.flag("force", true);
    let outcome = api
        .change_by(|ids| request::delete_app(&id, force, ids))
        .await?;
    deploying(StatusCode::OK, &outcome)
}

fn app_named_restart(parent: &AppId) -> Result<AppId, Refusal> {
    AppId::parse(&format!("{parent}/restart"))
        .map_err(|source| Refusal::BadArgument(source.to_string()))
}

/// POST …/restart.
pub(super) async fn act(
    State(api): State<Api>,
    Path(rest): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let AppPath::Restart(id) = AppPath::parse(&rest)? else {
        return Err(Refusal::WrongMethod);
    };
    let force = Parameters::of(request.uri()).flag("force", false);
    let outcome = api
        .change_by(|ids| request::restart_app(&id, force, ids))
        .await?;
    deploying(StatusCode::OK, &outcome)
}

/// GET of everything below `/v2/apps/`.
pub(super) async fn read(
    State(api): State<Api>,
    Path(rest): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (state, now) = (api.handle.state(), api.handle.now());
    let asked = embed(&Parameters::of(request.uri()));
    let body = match AppPath::parse(&rest)? {
        AppPath::App(id) => {
            let record = known(&state, &id)?;
            let embed = Embed {
                tasks: true,
                last_task_failure: true,
                ..asked
            };
            json!({ "app": view::app_info(&state, record, embed, now) })
        }
        AppPath::Group(path) => {
            let apps = below(&state, &path).map(|app| view::app_info(&state, app, asked, now));
            json!({ "*": apps.collect::<Vec<_>>() })
        }
        AppPath::Versions(id) => {
            let versions = known(&state, &id)?.versions.keys().rev();
            json!({ "versions": versions.map(Millis::to_string).collect::<Vec<_>>() })
        }
        AppPath::Version(id, version) => version_of(known(&state, &id)?, &version)?,
        AppPath::Tasks(id) => app_tasks::of_app(&state, known(&state, &id)?),
        AppPath::Task(id, task) => app_tasks::one(&state, &id, &task)?,
        AppPath::GroupTasks(path) => app_tasks::of_apps(&state, below(&state, &path)),
        AppPath::Restart(_) => return Err(Refusal::WrongMethod),
    };
    Ok(Json(body).into_response())
}

/// The app, or the answer that there is none.
pub(super) fn known<'a>(state: &'a Replicated, id: &AppId) -> Result<&'a AppRecord, Refusal> {
    state
        .app(id)
        .ok_or_else(|| Rejection::AppUnknown(id.clone()).into())
}

fn below<'a>(state: &'a Replicated, group: &str) -> impl Iterator<Item = &'a AppRecord> {
    let prefix = format!("{group}/");
    state
        .apps()
        .iter()
        .filter(move |app| app.spec.id.as_str().starts_with(&prefix))
}

fn version_of(record: &AppRecord, version: &str) -> Result<Value, Refusal> {
    let at = Millis::parse(version).and_then(|at| view::app(record, at));
    at.ok_or_else(|| {
        let id = &record.spec.id;
        Refusal::NotFound(format!(
            "App '{id}' with version '{version}' does not exist"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeds_come_with_any_prefix() {
        let of = |query: &str| embed(&Parameters::of(&format!("/x?{query}").parse().unwrap()));
        let tasks = Embed {
            tasks: true,
            ..Embed::default()
        };
        for query in [
            "embed=tasks",
            "embed=apps.tasks",
            "embed=app.tasks",
            "embed=group.apps.tasks",
        ] {
            assert_eq!(of(query), tasks, "{query}");
        }
        assert_eq!(of("embed=apps.nonsense&embed=x"), Embed::default());
        assert_eq!(
            of("embed=apps.failures"),
            Embed {
                last_task_failure: true,
                ..tasks
            }
        );
        assert_eq!(
            of("embed=taskStats"),
            Embed {
                task_stats: true,
                ..Embed::default()
            }
        );
    }
}
