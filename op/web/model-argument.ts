/** The ways to name a model that InferenceSession.create accepts: URL, Blob, bytes, part of a buffer. */

import type { InferenceSession } from 'onnxruntime-common';

export type ModelSource = string | URL | Blob | ArrayBufferLike | Uint8Array;

export interface ModelArguments {
  readonly bytes: Uint8Array;
  readonly options: InferenceSession.SessionOptions;
}

/** Reads the model; rejects with a sentence that names what could not be read. */
export async function readModelArguments(
  source: ModelSource,
  rest: readonly unknown[],
): Promise<ModelArguments> {
  if (typeof source === 'string' || source instanceof URL)
    return { bytes: await fetchBytes(String(source)), options: optionsOf(rest[0]) };
  if (source instanceof Blob)
    return { bytes: new Uint8Array(await source.arrayBuffer()), options: optionsOf(rest[0]) };
  if (source instanceof Uint8Array) return { bytes: source, options: optionsOf(rest[0]) };
  if (!isBuffer(source))
    throw new TypeError(
      `the model is a ${typeof source}; it must be a URL, a Blob, an ArrayBuffer or a Uint8Array`,
    );
  if (typeof rest[0] !== 'number') return { bytes: new Uint8Array(source), options: optionsOf(rest[0]) };
  const [byteOffset, byteLength, options] = rest as [number, number | undefined, unknown];
  return { bytes: new Uint8Array(source, byteOffset, byteLength), options: optionsOf(options) };
}

/** The bytes behind a URL. */
export async function fetchBytes(url: string): Promise<Uint8Array> {
  const response = await fetch(url).catch((cause: unknown) => {
    throw new Error(`'${url}' could not be fetched: ${String(cause)}`, { cause });
  });
  if (!response.ok) throw new Error(`'${url}' could not be fetched: the server answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

function isBuffer(source: unknown): source is ArrayBufferLike {
  return (
    source instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer !== 'undefined' && source instanceof SharedArrayBuffer)
  );
}

function optionsOf(value: unknown): InferenceSession.SessionOptions {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null) throw new TypeError("'options' must be an object.");
  return value;
}
