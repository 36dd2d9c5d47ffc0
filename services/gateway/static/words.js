// What the page itself says, per language; what the bot says comes from its pack.
export const WORDS = {
  en: {
    language: "Language", domain: "What the bot is about", speak: "Speak", stop: "Stop and send",
    type: "Type, or press the microphone", voice: "Read the answers aloud", send: "Send",
    again: "Play the answer", good: "Good answer", bad: "Bad answer", thanks: "Thank you, noted.",
    listening: "Listening. Press again when you have finished.",
    noMicrophone: "No microphone here: type instead.",
    unheard: "(nothing was understood as speech)", unknown: "not understood",
    degraded: "without", lost: "The connection was lost. Try again.", key: "API key of this server:",
    stt: "heard", nlu: "understood", policy: "decided", generate: "written", tts: "spoken",
    total: "in all", unit: "ms", first: "first sound",
  },
  ru: {
    language: "Язык", domain: "О чём бот", speak: "Сказать", stop: "Закончить и отправить",
    type: "Напишите или нажмите на микрофон", voice: "Читать ответы вслух", send: "Отправить",
    again: "Послушать ответ", good: "Хороший ответ", bad: "Плохой ответ", thanks: "Спасибо, записано.",
    listening: "Слушаю. Закончив, нажмите ещё раз.",
    noMicrophone: "Микрофона нет: напишите текстом.",
    unheard: "(речь не распознана)", unknown: "не понято",
    degraded: "без", lost: "Связь прервалась. Попробуйте ещё раз.", key: "Ключ этого сервера:",
    stt: "услышано", nlu: "понято", policy: "решено", generate: "написано", tts: "озвучено",
    total: "всего", unit: "мс", first: "первый звук",
  },
};
