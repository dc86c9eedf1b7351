module refusals

go 1.24
