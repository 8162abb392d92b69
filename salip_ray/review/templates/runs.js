/* Label maps as runs by rows: value, length, value, length, ... (salip_ray/review/runs.py). */

function toRuns(map) {
  let count = 1;
  for (let i = 1; i < map.length; i++) if (map[i] !== map[i - 1]) count++;
  const runs = new Uint32Array(2 * count);
  let at = 0;
  for (let i = 0; i < map.length; i++) {
    if (i > 0 && map[i] !== map[i - 1]) at += 2;
    runs[at] = map[i];
    runs[at + 1]++;
  }
  return runs;
}

function fromRuns(runs, length) {
  const map = new Uint16Array(length);
  let start = 0;
  for (let at = 0; at < runs.length; at += 2) {
    map.fill(runs[at], start, start + runs[at + 1]);
    start += runs[at + 1];
  }
  return map;
}

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function toBase64(bytes) {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(binary);
}

/* Unpack the grey values of a deep image (salip_ray/review/pictures.py): 16-bit steps by rows. */
async function unpackDeep(text, { height, width }) {
  const bytes = await through(new DecompressionStream("deflate"), fromBase64(text));
  const count = height * width;
  const steps = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const turn = (bytes[i] << 8) | bytes[count + i];
    steps[i] = (i % width ? steps[i - 1] : 0) + turn;
  }
  return steps;
}

async function packRuns(runs) {
  return toBase64(await through(new CompressionStream("deflate"), runs));
}

async function unpackRuns(text) {
  return new Uint32Array((await through(new DecompressionStream("deflate"), fromBase64(text))).buffer);
}
