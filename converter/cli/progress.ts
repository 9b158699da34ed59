/** A progress bar on standard error for work that takes long; silent where standard error is no terminal. */

const WIDTH = 28;
const REDRAW_MS = 80;
/** Work that ends sooner shows nothing. */
const QUIET_MS = 600;

export class Progress {
  readonly #began = Date.now();
  #drawnAt = 0;
  #label = '';

  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  /** @param fraction 0 to 1 */
  show(label: string, fraction: number): void {
    const now = Date.now();
    if (!this.stream.isTTY || now - this.#began < QUIET_MS) return;
    if (now - this.#drawnAt < REDRAW_MS && label === this.#label && fraction < 1) return;
    this.#drawnAt = now;
    this.#label = label;
    const filled = Math.round(WIDTH * Math.min(1, Math.max(0, fraction)));
    const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled);
    this.stream.write(`\r\x1b[K${bar} ${String(Math.floor(100 * fraction)).padStart(3)}% ${label}`);
  }

  /** Removes the bar, so that what follows begins on a clean line. */
  clear(): void {
    if (this.#drawnAt > 0) this.stream.write('\r\x1b[K');
    this.#drawnAt = 0;
  }
}
