// Says which requests it sees: one port with Node's usual parser, one with its lenient one.
const http = require('node:http');

for (const [index, port] of process.argv.slice(2).entries()) {
  const server = http.createServer({ insecureHTTPParser: index === 1 }, (request, response) => {
    console.log('SEEN', request.method, request.url);
    request.resume();
    request.on('end', () => response.end('ok'));
  });
  server.on('upgrade', (request, socket) => {
    console.log('SEEN UPGRADE', request.url);
    socket.destroy();
  });
  server.on('connect', (request, socket) => {
    console.log('SEEN CONNECT', request.url);
    socket.destroy();
  });
  server.on('clientError', (error, socket) => {
    // A message that ends early is the gateway's way to say that its rest was refused.
    const isCut = error.code === 'HPE_INVALID_EOF_STATE' || error.code === 'ECONNRESET';
    if (!isCut) console.log('BAD', error.code);
    socket.destroy();
  });
  server.listen(Number(port), '127.0.0.1');
}
