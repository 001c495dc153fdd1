//! Media types by the end of a file's name. Pure.

/// The media type of a file; bytes that nobody should interpret when its end is not known.
pub(super) fn of(name: &str) -> &'static str {
    let file = name.rsplit('/').next().unwrap_or(name);
    let end = file.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    let found = TYPES.iter().find(|(ends, _)| ends.split(' ').any(|known| known == end));
    found.map_or("application/octet-stream", |(_, media)| media)
}

const TYPES: &[(&str, &str)] = &[
    ("html htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js mjs cjs", "text/javascript; charset=utf-8"),
    ("json map", "application/json"),
    ("jsonld", "application/ld+json"),
    ("ndjson", "application/x-ndjson"),
    ("webmanifest", "application/manifest+json"),
    ("txt text log", "text/plain; charset=utf-8"),
    ("md markdown", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("xml", "text/xml; charset=utf-8"),
    ("yaml yml", "application/yaml"),
    ("atom", "application/atom+xml"),
    ("rss", "application/rss+xml"),
    ("xhtml", "application/xhtml+xml"),
    ("ics", "text/calendar; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("apng", "image/apng"),
    ("jpg jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/vnd.microsoft.icon"),
    ("bmp", "image/bmp"),
    ("tif tiff", "image/tiff"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz tgz", "application/gzip"),
    ("br", "application/x-brotli"),
    ("zst", "application/zstd"),
    ("bz2", "application/x-bzip2"),
    ("xz", "application/x-xz"),
    ("7z", "application/x-7z-compressed"),
    ("tar", "application/x-tar"),
    ("mp3", "audio/mpeg"),
    ("ogg oga", "audio/ogg"),
    ("opus", "audio/opus"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("m4a", "audio/mp4"),
    ("aac", "audio/aac"),
    ("mp4 m4v", "video/mp4"),
    ("webm", "video/webm"),
    ("ogv", "video/ogg"),
    ("mov", "video/quicktime"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("ts", "video/mp2t"),
    ("mpd", "application/dash+xml"),
    ("epub", "application/epub+zip"),
    ("rtf", "application/rtf"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_decides() {
        for (name, media) in [
            ("a/b/index.HTML", "text/html; charset=utf-8"),
            ("app.min.js", "text/javascript; charset=utf-8"),
            ("archive.tar.gz", "application/gzip"),
            ("a.css/README", "application/octet-stream"),
            ("x.", "application/octet-stream"),
            ("unknown.q", "application/octet-stream"),
        ] {
            assert_eq!(of(name), media, "{name}");
        }
    }
}
