//! A server that takes what is posted to it and keeps it: where sinks, listeners and spans go.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// One request that came.
#[derive(Debug, Clone)]
pub struct Post {
    /// The request line and the fields.
    pub head: String,
    /// The body.
    pub body: String,
}

/// The server.
pub struct Collector {
    /// Its port.
    pub port: u16,
    posts: Arc<Mutex<Vec<Post>>>,
    status: Arc<AtomicU16>,
}

impl Collector {
    /// Starts it; it answers 200.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let posts: Arc<Mutex<Vec<Post>>> = Arc::default();
        let status = Arc::new(AtomicU16::new(200));
        let (kept, answers) = (Arc::clone(&posts), Arc::clone(&status));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
                tokio::spawn(async move {
                    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
                    loop {
                        let Ok(n) = stream.read(&mut piece).await else { return };
                        bytes.extend(&piece[..n]);
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                        let length = head
                            .to_ascii_lowercase()
                            .lines()
                            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                            .unwrap_or(0);
                        if body.len() < length && n > 0 {
                            continue;
                        }
                        let status = answers.load(Ordering::Relaxed);
                        let post = Post { head: head.to_owned(), body: body.to_owned() };
                        kept.lock().expect("the lock").push(post);
                        let answer = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                        );
                        let _ = stream.write_all(answer.as_bytes()).await;
                        return;
                    }
                });
            }
        });
        Self { port, posts, status }
    }

    /// Answers this from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// What came so far.
    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().expect("the lock").clone()
    }

    /// What came so far to this path.
    pub fn posts_to(&self, path: &str) -> Vec<Post> {
        let start = format!("POST {path} ");
        self.posts().into_iter().filter(|post| post.head.starts_with(&start)).collect()
    }
}
