// SHA-1 (FIPS 180-4). Browsers offer their own only in a secure context, and the explorer is also served by plain HTTP.

const ROUND_CONSTANTS = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6];
const BLOCK_BYTES = 64;

const rotate = (word, bits) => (word << bits) | (word >>> (32 - bits));

/** The SHA-1 of a text in UTF-8, in lower-case hexadecimal. */
export function sha1(text) {
  const blocks = padded(new TextEncoder().encode(text));
  const digest = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
  const words = new Int32Array(80);
  for (let offset = 0; offset < blocks.byteLength; offset += BLOCK_BYTES) {
    for (let i = 0; i < 16; i++) words[i] = blocks.getInt32(offset + 4 * i);
    for (let i = 16; i < 80; i++) words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    let [a, b, c, d, e] = digest;
    for (let i = 0; i < 80; i++) {
      const round = Math.floor(i / 20);
      const mixed = [(b & c) | (~b & d), b ^ c ^ d, (b & c) | (b & d) | (c & d), b ^ c ^ d][round];
      const next = (rotate(a, 5) + mixed + e + words[i] + ROUND_CONSTANTS[round]) | 0;
      [a, b, c, d, e] = [next, a, rotate(b, 30), c, d];
    }
    [a, b, c, d, e].forEach((word, i) => { digest[i] = (digest[i] + word) | 0; });
  }
  return digest.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

function padded(message) {
  const view = new DataView(new ArrayBuffer(Math.ceil((message.length + 9) / BLOCK_BYTES) * BLOCK_BYTES));
  new Uint8Array(view.buffer).set(message);
  view.setUint8(message.length, 0x80);
  view.setBigUint64(view.byteLength - 8, BigInt(message.length) * 8n);
  return view;
}
