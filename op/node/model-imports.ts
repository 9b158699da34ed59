/**
 * Which operator domains a model file imports, and which domains its local functions are in.
 *
 * Only the top level of the protobuf is read: the graph, where nearly all bytes are, is skipped by its length. A file of
 * any size takes a few small reads.
 */

import { type FileHandle, open } from 'node:fs/promises';

const OPSET_IMPORT = 8;
const FUNCTIONS = 25;
const OPSET_DOMAIN = 1;
const OPSET_VERSION = 2;
const FUNCTION_DOMAIN = 10;

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** Longest tag and length together. */
const MAX_FIELD_HEADER_BYTES = 20;
/** A longer domain name is not one of ours. */
const MAX_DOMAIN_BYTES = 1024;
const BLOCK_BYTES = 1 << 16;

export interface ModelImports {
  /** Versions of the domains of `opset_import`; "" is ONNX's own. */
  readonly domains: ReadonlyMap<string, number>;
  /** Domains in which the model defines functions of its own. */
  readonly functionDomains: ReadonlySet<string>;
}

/** Random access to a model's bytes. */
interface Bytes {
  readonly size: number;
  /** `length` (at most 1024) bytes from `offset` on, fewer at the end; valid until the next read. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/**
 * Reads the imports of a model, given by path or by content. Resolves to `undefined` when it is not a readable
 * protobuf message: what is wrong with it is for ONNX Runtime to say.
 */
export async function readModelImports(model: string | Uint8Array): Promise<ModelImports | undefined> {
  if (typeof model !== 'string') {
    return walk({ size: model.byteLength, read: async (offset, n) => model.subarray(offset, offset + n) });
  }
  let file: FileHandle;
  try {
    file = await open(model, 'r');
  } catch {
    return undefined;
  }
  try {
    return await walk(await bufferedFile(file));
  } catch {
    return undefined;
  } finally {
    await file.close();
  }
}

/** Reads a block at a time, so that many small fields do not become many small reads. */
async function bufferedFile(file: FileHandle): Promise<Bytes> {
  const { size } = await file.stat();
  const block = Buffer.alloc(BLOCK_BYTES);
  let begin = 0;
  let end = 0;
  return {
    size,
    async read(offset, length) {
      if (offset < begin || offset + length > end) {
        const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, offset);
        begin = offset;
        end = offset + bytesRead;
      }
      return block.subarray(offset - begin, Math.min(offset + length, end) - begin);
    },
  };
}

async function walk(bytes: Bytes): Promise<ModelImports | undefined> {
  const domains = new Map<string, number>();
  const functionDomains = new Set<string>();
  for (let offset = 0; offset < bytes.size;) {
    const field = await readField(bytes, offset);
    if (field === undefined) return undefined;
    if (field.wireType === LENGTH_DELIMITED && field.number === OPSET_IMPORT) {
      domains.set(await readText(bytes, field, OPSET_DOMAIN), await readNumber(bytes, field, OPSET_VERSION));
    } else if (field.wireType === LENGTH_DELIMITED && field.number === FUNCTIONS) {
      functionDomains.add(await readText(bytes, field, FUNCTION_DOMAIN));
    }
    offset = field.end;
  }
  return { domains, functionDomains };
}

interface Field {
  readonly number: number;
  readonly wireType: number;
  /** Where its content begins and ends in the file. */
  readonly begin: number;
  readonly end: number;
}

/** The string field `number` of a message; "" when absent. */
async function readText(bytes: Bytes, message: Field, number: number): Promise<string> {
  let text = '';
  for (let offset = message.begin; offset < message.end;) {
    const field = await readField(bytes, offset);
    if (field === undefined) break;
    const isText = field.number === number && field.wireType === LENGTH_DELIMITED;
    if (isText && field.end - field.begin <= MAX_DOMAIN_BYTES) {
      text = new TextDecoder().decode(await bytes.read(field.begin, field.end - field.begin));
    }
    offset = field.end;
  }
  return text;
}

/** The varint field `number` of a message; 0 when absent. */
async function readNumber(bytes: Bytes, message: Field, number: number): Promise<number> {
  let value = 0;
  for (let offset = message.begin; offset < message.end;) {
    const field = await readField(bytes, offset);
    if (field === undefined) break;
    if (field.number === number && field.wireType === VARINT) {
      value = readVarint(await bytes.read(field.begin, field.end - field.begin), 0)?.value ?? 0;
    }
    offset = field.end;
  }
  return value;
}

async function readField(bytes: Bytes, offset: number): Promise<Field | undefined> {
  const header = await bytes.read(offset, MAX_FIELD_HEADER_BYTES);
  const tag = readVarint(header, 0);
  if (tag === undefined) return undefined;
  const number = Math.floor(tag.value / 8);
  const wireType = tag.value % 8;
  const begin = offset + tag.end;
  const content = contentSpan(header, tag.end, wireType);
  if (number === 0 || content === undefined) return undefined;
  const end = begin + content.skip + content.length;
  return end <= bytes.size ? { number, wireType, begin: begin + content.skip, end } : undefined;
}

/** `skip`: bytes of a length before the content. */
function contentSpan(
  header: Uint8Array,
  at: number,
  wireType: number,
): { skip: number; length: number } | undefined {
  if (wireType === FIXED64) return { skip: 0, length: 8 };
  if (wireType === FIXED32) return { skip: 0, length: 4 };
  const varint = readVarint(header, at);
  if (varint === undefined) return undefined;
  if (wireType === VARINT) return { skip: 0, length: varint.end - at };
  return wireType === LENGTH_DELIMITED ? { skip: varint.end - at, length: varint.value } : undefined;
}

/** Exact up to 2^53; a larger value only needs to be larger than any file. */
function readVarint(bytes: Uint8Array, at: number): { value: number; end: number } | undefined {
  let value = 0;
  let scale = 1;
  for (let i = at; i < Math.min(at + 10, bytes.length); i++) {
    const byte = bytes[i]!;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return { value, end: i + 1 };
    scale *= 128;
  }
  return undefined;
}
