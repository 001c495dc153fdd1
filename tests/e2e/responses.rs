//! Promise: responses leave in the coding that a client likes best, at once when they are a stream, and
//! files of a folder are served as RFC 9110 wants it and from nowhere else.

use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::time::Duration;

use http_body_util::BodyExt as _;

use crate::harness::client::{Answer, Client, get, request, with};
use crate::harness::{Gateway, RustOrigin, within};

const COMPRESSED: &str = "
sites:
  - hosts: [app.localhost]
    compress: true
    routes:
      - {path: /plain, compress: off, upstream: app}
      - {path: /, upstream: app}
upstreams:
  app: http://127.0.0.1:@origin@
";

fn decoded(answer: &Answer) -> String {
    let mut text = String::new();
    let body: &[u8] = &answer.body;
    match answer.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(body, 4096).read_to_string(&mut text),
        "zstd" => zstd::stream::read::Decoder::new(body).unwrap().read_to_string(&mut text),
        other => panic!("{other:?} in {answer:?}"),
    }
    .unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_the_coding_they_like_best() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(COMPRESSED).await;
    let client = gateway.client().await;
    let asked = |path: &str, accept: &str, bytes: usize| {
        let asked = request("POST", "app.localhost", path, "abc ".repeat(bytes / 4));
        with(asked, "accept-encoding", accept)
    };
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("br;q=0.5, gzip", "gzip"),
    ] {
        // More than the encoder takes in one turn, so that it has to yield.
        let answer = client.send(asked("/", accept, 2 << 20)).await;
        assert_eq!(answer.header("content-encoding"), coding, "{accept}");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert!(answer.body.len() < 200_000, "{accept}: {} bytes", answer.body.len());
        let seen: serde_json::Value = serde_json::from_str(&decoded(&answer)).unwrap();
        assert_eq!(seen["body"].as_str().unwrap().len(), 2 << 20);
    }
    for (path, accept, bytes, has_vary) in [
        ("/", "identity", 4096, true),
        ("/", "gzip;q=0", 4096, true),
        ("/", "gzip", 0, false),
        ("/plain", "gzip", 4096, false),
        // No media type that is known to gain.
        ("/big?n=5000", "gzip", 0, false),
    ] {
        let answer = client.send(asked(path, accept, bytes)).await;
        assert_eq!(answer.header("content-encoding"), "", "{path} {accept}");
        assert_eq!(answer.headers.contains_key("vary"), has_vary, "{path} {accept}");
    }
    let mut h2 = client.h2("app.localhost").await.unwrap();
    let answer = h2.send(asked("/", "gzip", 100_000)).await.unwrap();
    assert!(decoded(&answer).len() > 100_000);
    // The connection is as good as before.
    assert_eq!(h2.send(get("app.localhost", "/")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_leaves_before_the_next_one_comes() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(COMPRESSED).await;
    let client = gateway.client().await;
    for coding in ["gzip", "br", "zstd"] {
        let mut http = client.h1("app.localhost").await.unwrap();
        let asked = with(get("app.localhost", "/events"), "accept-encoding", coding);
        let mut response = http.open(asked).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], coding);
        let mut bytes = Vec::new();
        let mut event = vec![0; "data: one\n\n".len()];
        let whole = async {
            loop {
                let frame = response.body_mut().frame().await.unwrap().unwrap();
                bytes.extend_from_slice(frame.data_ref().unwrap());
                let stream: &[u8] = &bytes;
                let read = match coding {
                    "gzip" => flate2::read::GzDecoder::new(stream).read_exact(&mut event),
                    "br" => brotli::Decompressor::new(stream, 16).read_exact(&mut event),
                    _ => zstd::stream::read::Decoder::new(stream)
                        .and_then(|mut decoder| decoder.read_exact(&mut event)),
                };
                if read.is_ok() {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), whole).await.expect(coding);
        assert_eq!(event, b"data: one\n\n");
    }
}

const FILES: &str = "
sites:
  - hosts: [app.localhost]
    routes:
      - {path: /linked/, strip-prefix: /linked, files: {root: @dir@/www, symlinks: within}}
      - path: /app
        strip-prefix: /app
        files: {root: @dir@/www, fallback: index.html, cache-control: no-cache}
      - path: /packed
        strip-prefix: /packed
        files: {root: @dir@/www, precompressed: [br, gzip]}
      - {path: /squeezed, strip-prefix: /squeezed, compress: true, files: @dir@/www}
      - {path: /, files: @dir@/www}
";

async fn serving() -> (Gateway, Client) {
    let mut gateway = Gateway::new();
    let www = gateway.folder().join("www");
    std::fs::create_dir_all(www.join("docs/.git")).unwrap();
    std::fs::create_dir_all(gateway.folder().join("www-secret")).unwrap();
    gateway.file("secret.txt", "secret");
    gateway.file("www-secret/a.txt", "secret");
    gateway.file("www/index.html", "<h1>home</h1>");
    gateway.file("www/docs/index.html", "<h1>docs</h1>");
    gateway.file("www/docs/.git/config", "secret");
    gateway.file("www/.env", "secret");
    gateway.file("www/big.bin", (0..1_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    gateway.file("www/page.css", "body { color: black }\n".repeat(1000));
    gateway.file("www/page.css.br", "as brotli");
    gateway.file("www/page.css.gz", "as gzip");
    symlink("../secret.txt", www.join("out.txt")).unwrap();
    symlink(gateway.folder().join("secret.txt"), www.join("absolute.txt")).unwrap();
    symlink("..", www.join("up")).unwrap();
    symlink("docs/index.html", www.join("inside.html")).unwrap();
    gateway.start(FILES).await;
    let client = gateway.client().await;
    (gateway, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_served_whole_in_part_and_not_again() {
    let (_gateway, client) = serving().await;
    let home = client.get("app.localhost", "/").await;
    assert_eq!((home.status, home.text().as_str()), (200, "<h1>home</h1>"));
    assert_eq!(home.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(home.header("accept-ranges"), "bytes");
    let redirect = client.get("app.localhost", "/docs?a").await;
    assert_eq!((redirect.status, redirect.header("location")), (308, "./docs/?a"));
    assert_eq!(client.get("app.localhost", "/docs/").await.text(), "<h1>docs</h1>");
    let big = client.get("app.localhost", "/big.bin").await;
    assert_eq!(big.body.len(), 1_000_000);
    assert!(big.body.iter().enumerate().all(|(n, byte)| (n % 251) as u8 == *byte));
    let (tag, modified) = (big.header("etag"), big.header("last-modified"));
    let ask = |pairs: &[(&'static str, &str)]| {
        pairs.iter().fold(get("app.localhost", "/big.bin"), |asked, (n, v)| with(asked, n, v))
    };
    for (pairs, status, range) in [
        (vec![("range", "bytes=0-9")], 206, "bytes 0-9/1000000"),
        (vec![("range", "bytes=-5")], 206, "bytes 999995-999999/1000000"),
        (vec![("range", "bytes=500000-")], 206, "bytes 500000-999999/1000000"),
        (vec![("range", "bytes=1000000-")], 416, "bytes */1000000"),
        (vec![("range", "bytes=0-1,3-4")], 200, ""),
        (vec![("range", "bytes=0-1"), ("if-range", tag)], 206, "bytes 0-1/1000000"),
        (vec![("range", "bytes=0-1"), ("if-range", "\"other\"")], 200, ""),
        (vec![("if-none-match", tag)], 304, ""),
        (vec![("if-modified-since", modified)], 304, ""),
        (vec![("if-match", "\"other\"")], 412, ""),
    ] {
        for answer in [
            client.send(ask(&pairs)).await,
            client.h2("app.localhost").await.unwrap().send(ask(&pairs)).await.unwrap(),
        ] {
            assert_eq!(answer.status, status, "{pairs:?}");
            assert_eq!(answer.header("content-range"), range, "{pairs:?}");
            if status == 206 {
                let first: usize = range[6..].split('-').next().unwrap().parse().unwrap();
                assert_eq!(answer.body[0], (first % 251) as u8, "{pairs:?}");
            }
            assert_eq!(answer.body.is_empty(), !matches!(status, 200 | 206), "{pairs:?}");
        }
    }
    let head = client.send(request("HEAD", "app.localhost", "/big.bin", "")).await;
    assert_eq!((head.status, head.header("content-length")), (200, "1000000"));
    assert!(head.body.is_empty());
    let post = client.send(request("POST", "app.localhost", "/big.bin", "x")).await;
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD"));
    let shell = client.get("app.localhost", "/app/some/route").await;
    assert_eq!((shell.status, shell.text().as_str()), (200, "<h1>home</h1>"));
    assert_eq!(shell.header("cache-control"), "no-cache");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_out_compressed_where_that_is_asked_for() {
    let (_gateway, client) = serving().await;
    for (accept, coding, text) in [("gzip, br", "br", "as brotli"), ("gzip", "gzip", "as gzip")] {
        let asked = with(get("app.localhost", "/packed/page.css"), "accept-encoding", accept);
        let answer = client.send(asked).await;
        assert_eq!((answer.header("content-encoding"), answer.text().as_str()), (coding, text));
        assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
        assert_eq!(answer.header("vary"), "accept-encoding");
    }
    let plain = client.get("app.localhost", "/packed/page.css").await;
    assert_eq!((plain.header("content-encoding"), plain.body.len()), ("", 22_000));
    let asked = || with(get("app.localhost", "/squeezed/page.css"), "accept-encoding", "gzip");
    let answer = client.send(asked()).await;
    assert_eq!(decoded(&answer), "body { color: black }\n".repeat(1000));
    let tag = answer.header("etag");
    assert!(tag.starts_with("W/"), "{tag}");
    assert_eq!(client.send(with(asked(), "if-none-match", tag)).await.status, 304);
    let mut head = asked();
    *head.method_mut() = http::Method::HEAD;
    let head = client.send(head).await;
    assert_eq!((head.header("content-encoding"), head.header("content-length")), ("gzip", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outside_the_folder_is_served() {
    let (gateway, client) = serving().await;
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/docs/%2e%2e/%2e%2e/secret.txt",
        "/..%5csecret.txt",
        "/%00/../../secret.txt",
        "//secret.txt",
        "/.env",
        "/docs/.git/config",
        "/out.txt",
        "/absolute.txt",
        "/up/secret.txt",
        "/inside.html",
        "/linked/out.txt",
        "/linked/absolute.txt",
        "/linked/up/secret.txt",
        "/linked/up/www-secret/a.txt",
        "/linked/../secret.txt",
        "/squeezed-secret/a.txt",
        "/docs/index.html/",
        "/no-such",
    ] {
        let answer = client.get("app.localhost", path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
        assert!(!answer.text().contains("secret.txt"), "{path}: {answer:?}");
    }
    assert_eq!(client.get("app.localhost", "/linked/inside.html").await.text(), "<h1>docs</h1>");
    // A pipe is no file, and holds nobody.
    let pipe = gateway.folder().join("www/pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let answer = within("an answer", Duration::from_secs(5), client.get("app.localhost", "/pipe"));
    assert_eq!(answer.await.status, 404);
}
