-- Who does not want to call any more leaves the line.
give_up_place(q.key .. SEP .. q.ticket)
return '{}'
