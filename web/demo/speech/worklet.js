// Between the microphone, the worker with the models, and the loudspeaker. Runs on the audio thread, so it only copies.

/** Samples that go to the worker at once. */
const BLOCK = 512;
/** Seconds that are kept before what comes back is played, and seconds from which on the oldest is left out. */
const AHEAD = 0.06;
const TOO_LATE = 0.4;

class Microphone extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #filled = 0;
  #worker = null;
  #queue = [];
  #queued = 0;
  #at = 0;
  #playing = false;
  #hear = false;
  #open = true;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data.worker) {
        this.#worker = data.worker;
        this.#worker.onmessage = ({ data: samples }) => this.#take(samples);
      }
      if ("hear" in data) this.#hear = data.hear;
      if (data.stop) this.#open = false;
    };
  }

  #take(samples) {
    if (!this.#hear) {
      this.#queue.length = this.#queued = this.#at = 0;
      this.#playing = false;
      return;
    }
    this.#queue.push(samples);
    this.#queued += samples.length;
    while (this.#queued > TOO_LATE * sampleRate && this.#queue.length > 1) {
      this.#queued -= this.#queue.shift().length - this.#at;
      this.#at = 0;
    }
  }

  #play(out) {
    if (this.#queued >= AHEAD * sampleRate) this.#playing = true;
    for (let n = 0; this.#playing && n < out.length; n++) {
      out[n] = this.#queue[0][this.#at++];
      this.#queued--;
      if (this.#at === this.#queue[0].length) {
        this.#queue.shift();
        this.#at = 0;
      }
      if (this.#queue.length === 0) this.#playing = false;
    }
  }

  process(inputs, outputs) {
    const channels = inputs[0];
    if (this.#worker && channels.length > 0) {
      for (let n = 0; n < channels[0].length; n++) {
        let sum = 0;
        for (const channel of channels) sum += channel[n];
        this.#block[this.#filled++] = sum / channels.length;
        if (this.#filled === BLOCK) {
          this.#worker.postMessage(this.#block.slice());
          this.#filled = 0;
        }
      }
    }
    if (this.#hear) {
      this.#play(outputs[0][0]);
      for (const channel of outputs[0].slice(1)) channel.set(outputs[0][0]);
    }
    return this.#open;
  }
}

registerProcessor("microphone", Microphone);
