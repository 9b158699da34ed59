/** Model files on disk: random-access reading, external data beside the model, atomic writing. The only Node code here. */
import { closeSync, fstatSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname, isAbsolute, join, normalize, sep } from 'node:path';
import { openModel, type Model } from './model.js';
import type { ByteSource, ExternalData } from './source.js';

/** A file as a byte source; `close` when done. */
export class FileSource implements ByteSource {
  readonly size: number;
  private readonly descriptor: number;

  constructor(readonly path: string) {
    this.descriptor = openSync(path, 'r');
    this.size = fstatSync(this.descriptor).size;
  }

  read(start: number, end: number): Uint8Array {
    const bytes = new Uint8Array(end - start);
    let filled = 0;
    while (filled < bytes.length) {
      const count = readSync(
        this.descriptor,
        bytes,
        filled,
        Math.min(bytes.length - filled, 1 << 28),
        start + filled,
      );
      if (count === 0) throw new Error(`'${this.path}' ended at byte ${start + filled}, expected ${end}`);
      filled += count;
    }
    return bytes;
  }

  close(): void {
    closeSync(this.descriptor);
  }
}

/** Finds external data below the folder of the model; a location that leaves the folder is not followed. */
export function externalDataBeside(modelPath: string): ExternalData & { close(): void } {
  const folder = dirname(modelPath);
  const open = new Map<string, FileSource | null>();
  const find = (location: string): ByteSource | null => {
    const known = open.get(location);
    if (known !== undefined) return known;
    const inside = normalize(location);
    let source: FileSource | null = null;
    if (location !== '' && !isAbsolute(inside) && inside !== '..' && !inside.startsWith(`..${sep}`)) {
      try {
        source = new FileSource(join(folder, inside));
      } catch {
        source = null;
      }
    }
    open.set(location, source);
    return source;
  };
  return Object.assign(find, { close: () => open.forEach((source) => source?.close()) });
}

export interface OpenFile {
  readonly model: Model;
  close(): void;
}

/** Opens a model file; its bytes and external data are read when needed, until `close`. */
export function openModelFile(path: string): OpenFile {
  const source = new FileSource(path);
  const external = externalDataBeside(path);
  const close = (): void => {
    source.close();
    external.close();
  };
  try {
    return { model: openModel(source, external), close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Writes pieces to a file so that it appears complete or not at all.
 * @param progress is told the bytes written so far
 */
export function writePieces(
  path: string,
  pieces: Iterable<Uint8Array>,
  progress?: (bytes: number) => void,
): void {
  const temporary = `${path}.${process.pid}.part`;
  const descriptor = openSync(temporary, 'wx');
  try {
    let total = 0;
    try {
      for (const piece of pieces) {
        for (let at = 0; at < piece.length;)
          at += writeSync(descriptor, piece, at, Math.min(piece.length - at, 1 << 28));
        total += piece.length;
        progress?.(total);
      }
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
