/** Seconds in which one sound fades into the other. */
const FADE = 0.01;

/** Plays two recordings of the same length at the same time, of which one is heard. */
export class Player extends EventTarget {
  #sounds = null;
  #rate = 0;
  #context = null;
  #sources = [];
  #gains = {};
  #which = "after";
  #at = 0;
  #started = 0;

  /** `sounds`: { before, after }. */
  load(sounds, rate) {
    this.stop();
    this.#sounds = sounds;
    this.#rate = rate;
    this.#at = 0;
    this.#changed();
  }

  get length() {
    return this.#sounds ? this.#sounds.after.length / this.#rate : 0;
  }

  get isPlaying() {
    return this.#sources.length > 0;
  }

  get time() {
    const since = this.isPlaying ? this.#context.currentTime - this.#started : 0;
    return Math.max(0, Math.min(this.length, this.#at + since));
  }

  async play() {
    if (!this.#sounds || this.isPlaying) return;
    this.#context ??= new AudioContext();
    await this.#context.resume();
    if (this.isPlaying) return;
    if (this.#at >= this.length - 0.01) this.#at = 0;
    this.#gains = {};
    for (const [name, samples] of Object.entries(this.#sounds)) {
      const buffer = this.#context.createBuffer(1, samples.length, this.#rate);
      buffer.copyToChannel(samples, 0);
      const gain = this.#context.createGain();
      gain.gain.value = name === this.#which ? 1 : 0;
      gain.connect(this.#context.destination);
      const source = this.#context.createBufferSource();
      source.buffer = buffer;
      source.connect(gain);
      this.#gains[name] = gain;
      this.#sources.push(source);
    }
    this.#started = this.#context.currentTime;
    const at = this.#at;
    this.#sources.forEach((source) => source.start(this.#started, at));
    const [first] = this.#sources;
    first.onended = () => {
      if (this.#sources[0] !== first) return;
      this.#at = this.length;
      this.#sources = [];
      this.#changed();
    };
    this.#changed();
  }

  stop() {
    if (!this.isPlaying) return;
    this.#at = this.time;
    const sources = this.#sources;
    this.#sources = [];
    sources.forEach((source) => source.stop());
    this.#changed();
  }

  async seek(seconds) {
    const played = this.isPlaying;
    this.stop();
    this.#at = Math.max(0, Math.min(this.length, seconds));
    if (played) await this.play();
    this.#changed();
  }

  /** "before" or "after". */
  hear(which) {
    this.#which = which;
    for (const [name, { gain }] of Object.entries(this.#gains)) {
      gain.setTargetAtTime(name === which ? 1 : 0, this.#context.currentTime, FADE);
    }
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
