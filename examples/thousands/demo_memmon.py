from configparser import ConfigParser

conf = ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
conf.read("supervisor.conf")
processes = []
for section in conf.sections():
    kind, _, program = section.partition(":")
    if kind == "program":
        name = conf[section].get("process_name", "%(program_name)s")
        processes.append(name % {"program_name": program, "process_num": 0})
words = conf["eventlistener:memmon"]["command"].split()
watched = [word.partition("=")[0] for word in words if "=" in word]
for name in watched:
    print(name, "is a process" if name in processes else "is no process")
