//! A deliberately cheap HTTP/1.1 keep-alive origin: GET / -> 1 KiB, GET /10m -> 10 MiB,
//! any request body is read whole before the answer goes out.
use tokio::io::{AsyncReadExt, AsyncWriteExt};
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn find(h: &[u8], n: &[u8]) -> Option<usize> {
    memchr::memmem::find(h, n)
}

async fn conn(
    mut s: tokio::net::TcpStream,
    small: &'static [u8],
    big: &'static [u8],
) -> std::io::Result<()> {
    let mut b: Vec<u8> = Vec::with_capacity(65536);
    loop {
        let end = loop {
            if let Some(i) = find(&b, b"\r\n\r\n") {
                break i + 4;
            }
            if s.read_buf(&mut b).await? == 0 {
                return Ok(());
            }
        };
        let head = b[..end].to_ascii_lowercase();
        let is_big = head.starts_with(b"get /10m");
        let mut cl = 0usize;
        if let Some(i) = find(&head, b"\r\ncontent-length:") {
            let v = &head[i + 17..];
            let e = find(v, b"\r\n").unwrap();
            cl = std::str::from_utf8(&v[..e]).unwrap().trim().parse().unwrap();
        }
        let chunked = find(&head, b"\r\ntransfer-encoding: chunked").is_some();
        b.drain(..end);
        if chunked {
            loop {
                let i = loop {
                    if let Some(i) = find(&b, b"\r\n") {
                        break i;
                    }
                    if s.read_buf(&mut b).await? == 0 {
                        return Ok(());
                    }
                };
                let t = std::str::from_utf8(&b[..i]).unwrap_or("0");
                let n = usize::from_str_radix(t.split(';').next().unwrap().trim(), 16).unwrap();
                b.drain(..i + 2);
                let mut left = n + 2;
                while left > 0 {
                    if b.is_empty() && s.read_buf(&mut b).await? == 0 {
                        return Ok(());
                    }
                    let k = left.min(b.len());
                    b.drain(..k);
                    left -= k;
                }
                if n == 0 {
                    break;
                }
            }
        } else {
            while cl > 0 {
                if b.is_empty() && s.read_buf(&mut b).await? == 0 {
                    return Ok(());
                }
                let k = cl.min(b.len());
                b.drain(..k);
                cl -= k;
            }
        }
        s.write_all(if is_big { big } else { small }).await?;
    }
}

fn resp(n: usize) -> &'static [u8] {
    let mut v = format!("HTTP/1.1 200 OK\r\nserver: upstream\r\ncontent-type: text/plain\r\ncontent-length: {n}\r\n\r\n").into_bytes();
    v.resize(v.len() + n, b'x');
    Box::leak(v.into_boxed_slice())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (small, big) = (resp(1024), resp(10 << 20));
    let addr = std::env::args().nth(1).expect("addr");
    let s = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    s.set_reuse_address(true).unwrap();
    s.bind(&addr.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    s.listen(4096).unwrap();
    s.set_nonblocking(true).unwrap();
    let l = tokio::net::TcpListener::from_std(s.into()).unwrap();
    loop {
        if let Ok((s, _)) = l.accept().await {
            let _ = s.set_nodelay(true);
            tokio::spawn(conn(s, small, big));
        }
    }
}
