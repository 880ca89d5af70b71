//! Debian's registry with TLS by an authority of our own, with passwords, and with tokens that it
//! verifies itself.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_image::{
    Credentials, PullError, PullOptions, Reference, RegistryConfig, Store, StoreConfig,
};

use crate::fixture::{Layout, Registry, run};
use crate::server::{Request, Server, reply};

/// "gantry:open sesame" by bcrypt, as htpasswd writes it.
const HTPASSWD: &str = "gantry:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";
const USER: &str = "gantry";
const PASSWORD: &str = "open sesame";

/// A registry with one image, `a/b:1`.
fn registry() -> (Registry, String) {
    let registry = Registry::start();
    let layout = Layout::new(registry.scratch(), "image");
    layout.layer(|root| std::fs::write(root.join("file"), "content").unwrap());
    let name = registry.push(&layout, "a/b:1");
    (registry, name)
}

fn with_password(registry: &mut Registry, http: &str) {
    let path = registry.scratch().join("htpasswd");
    std::fs::write(&path, HTPASSWD).unwrap();
    let auth = format!(
        "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
        path.display()
    );
    registry.restart(http, &auth);
}

fn login(host: &str, user: &str, password: &str) -> Credentials {
    let config = serde_json::json!({"auths": {host: {"username": user, "password": password}}});
    Credentials::from_config(config.to_string().as_bytes()).unwrap()
}

fn open(dir: &Path, registry: RegistryConfig) -> Store {
    let config = StoreConfig {
        registry,
        ..StoreConfig::default()
    };
    Store::open_with(dir, config).unwrap()
}

async fn pull(store: &Store, name: &str, credentials: Credentials) -> Result<(), PullError> {
    let options = PullOptions {
        force: true,
        credentials,
        ..PullOptions::default()
    };
    let reference = Reference::parse(name).unwrap();
    store.pull(&reference, options).await.map(drop)
}

async fn refusal(store: &Store, name: &str, credentials: Credentials) -> String {
    let error = pull(store, name, credentials).await.unwrap_err();
    let message = error.message();
    assert!(!message.contains(PASSWORD), "{message}");
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_request_or_of_the_node() {
    let (mut registry, name) = registry();
    with_password(&mut registry, "");
    let host = registry.host.clone();
    let store = open(&registry.scratch().join("store"), RegistryConfig::default());
    let error = refusal(&store, &name, Credentials::default()).await;
    assert!(
        error.contains("does not let anyone read a/b without a login: give credentials for"),
        "{error}"
    );
    let error = refusal(&store, &name, login(&host, USER, "wrong")).await;
    assert!(
        error.contains("refused the credentials of the user \"gantry\" for a/b"),
        "{error}"
    );
    let error = refusal(&store, &name, login("other.lan", USER, PASSWORD)).await;
    assert!(error.contains("without a login"), "{error}");
    let token = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"id"}}}}}}"#);
    let token = Credentials::from_config(token.as_bytes()).unwrap();
    let error = refusal(&store, &name, token).await;
    assert!(error.contains("takes a user and a password"), "{error}");
    pull(&store, &name, login(&host, USER, PASSWORD))
        .await
        .unwrap();

    // The node's file: read when it is needed, and behind what came with the request.
    let file = registry.scratch().join("config.json");
    let config = RegistryConfig {
        credentials_file: Some(file.clone()),
        ..RegistryConfig::default()
    };
    let store = open(&registry.scratch().join("store2"), config);
    let error = refusal(&store, &name, Credentials::default()).await;
    assert!(
        error.contains("cannot read the node's credentials file"),
        "{error}"
    );
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{PASSWORD}"#)).unwrap();
    let error = refusal(&store, &name, Credentials::default()).await;
    assert!(error.contains("not a Docker config.json"), "{error}");
    let node = serde_json::json!({"auths": {
        format!("http://{host}/v1/"): {"username": USER, "password": PASSWORD}}});
    std::fs::write(&file, node.to_string()).unwrap();
    let error = refusal(&store, &name, login(&host, USER, "wrong")).await;
    assert!(error.contains("refused the credentials"), "{error}");
    pull(&store, &name, Credentials::default()).await.unwrap();
}

/// A directory with a credential program that knows one login and writes down what it is asked.
fn program(registry: &Registry, script: &str) -> PathBuf {
    let dir = registry.scratch().join("programs");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("docker-credential-test");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_program() {
    let (mut registry, name) = registry();
    with_password(&mut registry, "");
    let host = registry.host.clone();
    let asked = registry.scratch().join("asked");
    let answer = format!(
        r#"cat >{}; env | grep -q ^CARGO && exit 3; echo '{{"ServerURL":"x","Username":"{USER}","Secret":"{PASSWORD}"}}'"#,
        asked.display()
    );
    let programs = program(&registry, &answer);
    let file = registry.scratch().join("config.json");
    let text = format!(r#"{{"auths":{{"{host}":{{}}}},"credsStore":"test"}}"#);
    std::fs::write(&file, &text).unwrap();
    let config = |programs: Option<&PathBuf>| RegistryConfig {
        credentials_file: Some(file.clone()),
        credential_programs: programs.cloned(),
        ..RegistryConfig::default()
    };
    let off = open(&registry.scratch().join("off"), config(None));
    let error = refusal(&off, &name, Credentials::default()).await;
    assert!(
        error.contains("docker-credential-test, and no directory of such programs"),
        "{error}"
    );
    let store = open(&registry.scratch().join("on"), config(Some(&programs)));
    pull(&store, &name, Credentials::default()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), host);

    // A request's own credentials run nothing.
    std::fs::remove_file(&asked).unwrap();
    let theirs = Credentials::from_config(text.as_bytes()).unwrap();
    let error = refusal(&store, &name, theirs).await;
    assert!(
        error.contains("run for the node's own file only"),
        "{error}"
    );
    // Nor does a file that somebody else may write, nor such a program.
    for path in [&file, &programs.join("docker-credential-test")] {
        for (owner, mode) in [(1000, 0o755), (0, 0o775), (0, 0o757)] {
            chown(path, Some(owner), None).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = refusal(&store, &name, Credentials::default()).await;
            assert!(error.contains("may be changed by others"), "{error}");
        }
        chown(path, Some(0), None).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert!(!asked.exists());
    // Names that are paths, and programs that fail, talk nonsense or without end.
    for (script, says) in [
        ("echo secret; exit 1", "ended with an error"),
        ("echo secret", "output is not a login"),
        ("yes secret", "ended with an error"),
        (
            "echo 'credentials not found in native keychain'; exit 1",
            "without a login",
        ),
    ] {
        program(&registry, script);
        let error = refusal(&store, &name, Credentials::default()).await;
        assert!(error.contains(says) && !error.contains("secret"), "{error}");
    }
    for evil in ["../../bin/sh", "", "a b", "x/y"] {
        let text = serde_json::json!({"credHelpers": {&host: evil}}).to_string();
        std::fs::write(&file, text).unwrap();
        let error = refusal(&store, &name, Credentials::default()).await;
        assert!(error.contains("this is not a program's name"), "{error}");
    }
}

/// An authority, and a certificate and key that it gives to `name`.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let authority = Self {
            dir: dir.to_owned(),
        };
        authority.openssl("ca", &["-subj", "/CN=test authority"]);
        authority
    }

    fn give(&self, name: &str, more: &[&str]) {
        let (ca, key) = (self.path("ca.crt"), self.path("ca.key"));
        let mut args = vec!["-CA", &ca, "-CAkey", &key, "-subj", "/CN=test"];
        args.extend(["-addext", "subjectAltName=IP:127.0.0.1"]);
        args.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
        args.extend(more);
        self.openssl(name, &args);
    }

    fn openssl(&self, name: &str, args: &[&str]) {
        let (key, crt) = (
            self.path(&format!("{name}.key")),
            self.path(&format!("{name}.crt")),
        );
        let mut all = vec![
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ];
        all.extend(["-keyout", &key, "-out", &crt]);
        all.extend(args);
        run("openssl", &all);
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn http(&self, more: &str) -> String {
        let (crt, key) = (self.path("server.crt"), self.path("server.key"));
        format!("  tls: {{certificate: {crt}, key: {key}{more}}}\n")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_our_own() {
    let (mut registry, name) = registry();
    let authority = Authority::new(&registry.scratch().join("authority"));
    authority.give("server", &[]);
    with_password(&mut registry, &authority.http(""));
    let host = registry.host.clone();
    let certs = registry.scratch().join("certs.d");
    let ours = certs.join(&host);
    std::fs::create_dir_all(&ours).unwrap();
    let config = RegistryConfig {
        ca_dir: Some(certs.clone()),
        ..RegistryConfig::default()
    };
    let store = open(&registry.scratch().join("store"), config);
    let login = || login(&host, USER, PASSWORD);
    // With its directory but without the authority: TLS, and not trusted.
    let error = refusal(&store, &name, login()).await;
    assert!(
        error.contains("could not be reached over TLS") && error.contains("ca.crt"),
        "{error}"
    );
    let other = Authority::new(&registry.scratch().join("other"));
    std::fs::copy(other.path("ca.crt"), ours.join("ca.crt")).unwrap();
    let error = refusal(&store, &name, login()).await;
    assert!(error.contains("could not be reached over TLS"), "{error}");
    // Renewed certificates count at once.
    std::fs::copy(authority.path("ca.crt"), ours.join("ca.crt")).unwrap();
    pull(&store, &name, login()).await.unwrap();
    // An authority is trusted for its own host only: the same server under another name.
    let other_name = name.replace("127.0.0.1", "localhost");
    std::fs::create_dir_all(certs.join(host.replace("127.0.0.1", "localhost"))).unwrap();
    let error = refusal(&store, &other_name, login()).await;
    assert!(error.contains("could not be reached over TLS"), "{error}");
    // Without a directory, loopback is plain HTTP; a TLS server says so.
    let plain = open(&registry.scratch().join("plain"), RegistryConfig::default());
    let error = refusal(&plain, &name, login()).await;
    assert!(error.contains("answered 400"), "{error}");
    std::fs::write(ours.join("ca.crt"), "nonsense").unwrap();
    let error = refusal(&store, &name, login()).await;
    assert!(
        error.contains("the node's certificates for it cannot be used"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ours_is_asked_for() {
    let (mut registry, name) = registry();
    let authority = Authority::new(&registry.scratch().join("authority"));
    authority.give("server", &[]);
    authority.give("client", &["-addext", "extendedKeyUsage=clientAuth"]);
    let more = format!(", clientcas: [{}]", authority.path("ca.crt"));
    registry.restart(&authority.http(&more), "");
    let certs = registry.scratch().join("certs.d");
    let ours = certs.join(&registry.host);
    std::fs::create_dir_all(&ours).unwrap();
    std::fs::copy(authority.path("ca.crt"), ours.join("ca.crt")).unwrap();
    let config = RegistryConfig {
        ca_dir: Some(certs),
        ..RegistryConfig::default()
    };
    let store = open(&registry.scratch().join("store"), config);
    refusal(&store, &name, Credentials::default()).await;
    std::fs::copy(authority.path("client.crt"), ours.join("client.cert")).unwrap();
    let error = refusal(&store, &name, Credentials::default()).await;
    assert!(error.contains("client.key"), "{error}");
    std::fs::copy(authority.path("client.key"), ours.join("client.key")).unwrap();
    pull(&store, &name, Credentials::default()).await.unwrap();
}

/// What Docker's own token services do, with tokens that the registry verifies.
struct TokenService {
    dir: PathBuf,
    certificate: String,
}

impl TokenService {
    fn answer(&self, request: &Request, stream: &mut std::net::TcpStream) {
        let header = request.headers.get("authorization").map(String::as_str);
        // gantry:open sesame
        let by_password = header == Some("Basic Z2FudHJ5Om9wZW4gc2VzYW1l");
        let by_identity = request.method == "POST"
            && request.body.contains("grant_type=refresh_token")
            && request.body.contains("refresh_token=my%2Bidentity")
            && request.body.contains("scope=repository%3Aa%2Fb%3Apull");
        if header.is_some() && !by_password || request.method == "POST" && !by_identity {
            return reply(stream, "401 Unauthorized", &[], b"{}");
        }
        let actions: &[&str] = if by_password || by_identity {
            &["pull"]
        } else {
            &[]
        };
        let token = self.token(actions);
        let body = serde_json::json!({"access_token": token, "token": token, "expires_in": 300});
        reply(stream, "200 OK", &[], body.to_string().as_bytes());
    }

    fn token(&self, actions: &[&str]) -> String {
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs();
        let header = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]});
        let claims = serde_json::json!({
            "iss": "test", "aud": "registry", "sub": "", "jti": "1",
            "nbf": now - 60, "iat": now - 60, "exp": now + 300,
            "access": [{"type": "repository", "name": "a/b", "actions": actions}],
        });
        let text = self.dir.join(format!("{:?}", std::thread::current().id()));
        let signed = [header, claims].map(|part| base64url(part.to_string().as_bytes()));
        let signed = signed.join(".");
        std::fs::write(&text, &signed).unwrap();
        let key = self.dir.join("server.key").display().to_string();
        let out = text.with_extension("sig").display().to_string();
        let text = text.display().to_string();
        run(
            "openssl",
            &["dgst", "-sha256", "-sign", &key, "-out", &out, &text],
        );
        format!("{signed}.{}", base64url(&std::fs::read(&out).unwrap()))
    }
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_the_registry_verifies() {
    let (mut registry, name) = registry();
    let authority = Authority::new(&registry.scratch().join("authority"));
    authority.give("server", &[]);
    let pem = std::fs::read_to_string(authority.path("server.crt")).unwrap();
    let service = Arc::new(TokenService {
        dir: authority.dir.clone(),
        certificate: pem.lines().filter(|line| !line.contains("-----")).collect(),
    });
    let answering = Arc::clone(&service);
    let tokens = Server::start(move |request, stream| answering.answer(request, stream));
    let auth = format!(
        "auth: {{token: {{realm: \"http://{}/token\", service: registry, issuer: test, rootcertbundle: {}}}}}\n",
        tokens.host,
        authority.path("ca.crt")
    );
    registry.restart("", &auth);
    let host = registry.host.clone();
    let store = open(&registry.scratch().join("store"), RegistryConfig::default());

    let error = refusal(&store, &name, Credentials::default()).await;
    assert!(error.contains("without a login"), "{error}");
    let error = refusal(&store, &name, login(&host, USER, "wrong")).await;
    assert!(
        error.contains("refused the credentials of the user"),
        "{error}"
    );
    pull(&store, &name, login(&host, USER, PASSWORD))
        .await
        .unwrap();
    let asked = tokens.requests().len();
    let last = tokens.requests().pop().unwrap();
    assert_eq!(
        last.path,
        "/token?service=registry&scope=repository%3Aa%2Fb%3Apull&account=gantry"
    );
    // The token is kept for whoever has that password, and for nobody else.
    pull(&store, &name, login(&host, USER, PASSWORD))
        .await
        .unwrap();
    assert_eq!(tokens.requests().len(), asked);
    let error = refusal(&store, &name, Credentials::default()).await;
    assert!(error.contains("without a login"), "{error}");
    let error = refusal(&store, &name, login(&host, USER, "wrong")).await;
    assert!(error.contains("refused the credentials"), "{error}");

    let identity = |token: &str| {
        let config = serde_json::json!({"auths": {&host: {"identitytoken": token}}});
        Credentials::from_config(config.to_string().as_bytes()).unwrap()
    };
    let fresh = open(&registry.scratch().join("fresh"), RegistryConfig::default());
    pull(&fresh, &name, identity("my+identity")).await.unwrap();
    let last = tokens.requests().pop().unwrap();
    assert_eq!(
        (last.method.as_str(), last.path.as_str()),
        ("POST", "/token")
    );
    assert!(last.body.contains("client_id=gantry"), "{}", last.body);
    let error = refusal(&fresh, &name, identity("stolen")).await;
    assert!(
        error.contains("refused the credentials of the token that was given"),
        "{error}"
    );

    // A token that is given as it is, and one that is none.
    let direct = |token: &str| {
        let config = serde_json::json!({"auths": {&host: {"registrytoken": token}}});
        Credentials::from_config(config.to_string().as_bytes()).unwrap()
    };
    let asked = tokens.requests().len();
    pull(&fresh, &name, direct(&service.token(&["pull"])))
        .await
        .unwrap();
    let error = refusal(&fresh, &name, direct("nonsense")).await;
    assert!(error.contains("refused the credentials"), "{error}");
    assert_eq!(tokens.requests().len(), asked);
}
