// SPDX-License-Identifier: Apache-2.0
// A web service with sessions and a cache; a client in the same process visits it over loopback.
'use strict';
const http = require('http');
const { spawnSync } = require('child_process');

let state = Number(process.env.seed);
function draw(limit) {
  state = Math.imul(state, 1103515245) + 12345 & 0x7fffffff;
  return (state >>> 8) % limit;
}
const phase = (name) => spawnSync('pmlguest', ['phase', name]);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const sessions = new Map();
function visit(id) {
  let session = sessions.get(id);
  if (!session) {
    session = { id, items: Array.from({ length: 40 }, () => ({ sku: draw(5000), n: draw(9) })) };
    sessions.set(id, session);
  }
  session.items[draw(40)] = { sku: draw(5000), n: draw(9) };
  return JSON.stringify(session);
}
function report() {
  const counts = new Map();
  for (const { items } of sessions.values()) {
    for (const { sku, n } of items) counts.set(sku, (counts.get(sku) || 0) + n);
  }
  return [...counts].sort((a, b) => b[1] - a[1]).slice(0, 20);
}
function render(rows) {
  let html = '<table>';
  for (let i = 0; i < rows; i++) html += `<tr><td>${i}</td><td>${draw(1e6).toString(36)}</td></tr>`;
  return html.replace(/<td>/g, '<td class="x">').length;
}
function expire(keep) {
  for (const id of sessions.keys()) {
    if (sessions.size <= keep) break;
    sessions.delete(id);
  }
}

const server = http.createServer((request, response) => response.end(visit(Number(request.url.slice(1)))));
const agent = new http.Agent({ keepAlive: true, maxSockets: 20 });
function get(id) {
  return new Promise((resolve, reject) => {
    http.get({ port: 8080, host: '127.0.0.1', path: `/${id}`, agent }, (response) => {
      response.on('data', () => {}).on('end', resolve);
    }).on('error', reject);
  });
}
async function visits(count, among, at_once) {
  for (let i = 0; i < count; i += at_once) {
    await Promise.all(Array.from({ length: at_once }, () => get(draw(among))));
  }
}
async function main() {
  for (;;) {
    const users = 1000 * (1 + draw(12));
    switch (draw(9)) {
      case 0: case 1: phase('visit'); await visits(1500, users, 4); break;
      case 2: case 3: phase('hot'); await visits(1500, 60, 4); break;
      case 4: phase('burst'); await visits(2000, users, 40); break;
      case 5: phase('fill'); for (let i = 0; i < users; i++) visit(draw(60000)); break;
      case 6: phase('report'); report(); break;
      case 7: phase('render'); render(20000); break;
      case 8: phase('expire'); expire(1000 * draw(6)); break;
    }
    phase('idle');
    await sleep(300 + (draw(70) ** 2));
  }
}
server.listen(8080, '127.0.0.1', main);
