// The microphone in, the bot's voice out. Nothing here knows of turns.

/** Plays 16-bit mono PCM as it arrives; keeps what it was given, to play it again. */
export class Speech {
  static context = null;
  static current = null;

  constructor() {
    Speech.current?.stop();
    Speech.current = this;
    Speech.context ??= new AudioContext();
    Speech.context.resume();
    this.chunks = [];
    this.sources = new Set();
    this.at = 0;
    this.odd = new Uint8Array();
  }

  /** `base64` may end in the middle of a sample: the rest comes with the next chunk. */
  add(base64, rate) {
    const bytes = Uint8Array.from([...this.odd, ...atob(base64).split("").map((c) => c.charCodeAt(0))]);
    const whole = bytes.length - (bytes.length % 2);
    this.odd = bytes.slice(whole);
    if (!whole) return;
    const samples = new Int16Array(bytes.buffer.slice(0, whole));
    const chunk = Speech.context.createBuffer(1, samples.length, rate);
    chunk.copyToChannel(Float32Array.from(samples, (x) => x / 32768), 0);
    this.chunks.push(chunk);
    this.schedule(chunk);
  }

  schedule(chunk) {
    const source = Speech.context.createBufferSource();
    source.buffer = chunk;
    source.connect(Speech.context.destination);
    // 50 ms ahead when starting: enough for the next chunk to arrive in time.
    this.at = Math.max(this.at, Speech.context.currentTime + 0.05);
    source.start(this.at);
    this.at += chunk.duration;
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  stop() {
    for (const source of this.sources) source.stop();
    this.at = 0;
  }

  again() {
    Speech.current?.stop();
    Speech.current = this;
    for (const chunk of this.chunks) this.schedule(chunk);
  }
}

/** Records until `stop()`; `onLevel` gets the loudness, 0 to 1, on each frame drawn. */
export class Recording {
  static async start(onLevel) {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, noiseSuppression: true, echoCancellation: true },
    });
    return new Recording(stream, onLevel);
  }

  constructor(stream, onLevel) {
    this.stream = stream;
    const type = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"].find((t) =>
      MediaRecorder.isTypeSupported(t));
    this.recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    this.parts = [];
    this.recorder.ondataavailable = (event) => this.parts.push(event.data);
    this.recorder.start();
    this.watch(onLevel);
  }

  watch(onLevel) {
    this.context = new AudioContext();
    const analyser = this.context.createAnalyser();
    this.context.createMediaStreamSource(this.stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const look = () => {
      if (this.recorder.state !== "recording") return onLevel(0);
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
      onLevel(Math.min(1, Math.sqrt(power) * 6));
      requestAnimationFrame(look);
    };
    look();
  }

  /** The whole recording as one Blob. */
  stop() {
    return new Promise((resolve) => {
      this.recorder.onstop = () => {
        for (const track of this.stream.getTracks()) track.stop();
        this.context.close();
        resolve(new Blob(this.parts, { type: this.recorder.mimeType }));
      };
      this.recorder.stop();
    });
  }
}
