/** Model files on disk: random-access reading, external data beside the model, atomic writing. The only Node code here. */
import {
  closeSync,
  fstatSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, isAbsolute, join, normalize, sep } from 'node:path';
import { openModel, type Model } from './model.js';
import type { ByteSource, ExternalData } from './source.js';

/** A file as a byte source; `close` when done. */
export class FileSource implements ByteSource {
  readonly size: number;
  private readonly descriptor: number;

  constructor(readonly path: string) {
    // Opening a pipe would wait for its writer, for ever.
    const found = statSync(path);
    if (!found.isFile() && !found.isDirectory()) throw new Error(`'${path}' is not a regular file`);
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

/**
 * Path of an external data file, or `null` where the location leaves the model's folder: as a path, or through symbolic
 * links. (Links that lead where the model's own link leads, as in a download cache, stay inside.)
 */
export function externalDataPath(modelPath: string, location: string): string | null {
  const inside = normalize(location);
  if (location === '' || location.includes('\0') || isAbsolute(inside)) return null;
  if (inside === '..' || inside.startsWith(`..${sep}`)) return null;
  const folder = dirname(modelPath);
  const path = join(folder, inside);
  try {
    const real = realpathSync(path);
    const allowed = [realpathSync(folder === '' ? '.' : folder), dirname(realpathSync(modelPath))];
    if (!allowed.some((root) => real.startsWith(root.endsWith(sep) ? root : root + sep))) return null;
    return statSync(real).isFile() ? path : null;
  } catch {
    return null;
  }
}

/** Finds external data below the folder of the model; a location that leaves the folder is not followed. */
export function externalDataBeside(modelPath: string): ExternalData & { close(): void } {
  const open = new Map<string, FileSource | null>();
  const find = (location: string): ByteSource | null => {
    const known = open.get(location);
    if (known !== undefined) return known;
    const path = externalDataPath(modelPath, location);
    const source = path === null ? null : new FileSource(path);
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
